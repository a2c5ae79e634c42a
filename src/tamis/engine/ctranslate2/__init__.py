"""CTranslate2, the default library: conversion, kernels, tuning, runtime."""

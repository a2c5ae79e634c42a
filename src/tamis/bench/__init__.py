"""`tamis bench`: what a model costs on this machine."""

from typing import Literal

WorkloadName = Literal["short", "rag-mix", "long"]

"""One test for each row of the fault table (docs/operations.md), named after it."""

"""The vocabulary of builds: plans, stages, steps, and the ledger of those that were applied."""

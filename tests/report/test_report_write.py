"""The report of a whole run, of failed and partial ones, and of hostile data."""

"""The search for a file that a target accepts: candidates, how each is made, when one is accepted."""

"""What was left behind upstream: the ledger, the retry, and what makes a retry pointless."""

"""auth-billing: accounts, tokens, the service identities, the quota ledger. The only signer of JWTs."""

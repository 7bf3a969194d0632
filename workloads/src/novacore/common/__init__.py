"""What the nine services share: identity, storage, streams, listeners, errors, logs. No service is imported here."""

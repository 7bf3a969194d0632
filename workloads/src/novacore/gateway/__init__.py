"""gateway: the only published service. Checks tokens and limits, strips what clients must not say, and passes on."""

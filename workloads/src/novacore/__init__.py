"""NovaCore's nine services: `novacore serve <service>`."""

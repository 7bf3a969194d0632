"""The operator against a real API server with a real etcd, RBAC and audit log; pods are played (`tests.kit.player`)."""

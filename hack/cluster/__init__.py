"""A real Kubernetes cluster on any machine: `python3 -m hack.cluster VERB`.

Standard library only, because it runs before uv exists. Two paths behind one command (docs/adr/0001): *stock* where
Docker can pull images, *bare* where only package registries answer: then the node image, its control plane and the
third parties' images are built here, once, and cached.

`decide` holds the pure decisions, `host` reads the facts they need; `engine` (dockerd), `tools` (binaries), `node`
(node image), `bases` (third parties, the Python base), `product` (our two images), `kind` (the cluster) and `load`
(images into the node) act; `stages` prints progress. What runs *in* the cluster is elsewhere: hack/demo and charts.
"""

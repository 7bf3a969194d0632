"""Keys, passwords and certificates: what they look like (`forms`), and what is missing (`mint`).

Pure: randomness and the clock are parameters, and signatures are deterministic (RFC 6979), so the same input gives the
same bytes. In this release material is minted once; the rotation state machine comes later and works on the same forms.
"""

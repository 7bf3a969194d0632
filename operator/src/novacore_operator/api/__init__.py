"""`novacore.ai/v1alpha1` NovaCoreDeployment: the Pydantic models are the single source of the CRD.

`fields` holds the helpers that put validation rules into the schema, `spec` and `status` the models, `crd` makes the
CustomResourceDefinition of them, `generate` writes the files.
Invariant API-1: every default stands in the schema, so the API server fills it in and no code here does.
"""

from __future__ import annotations

GROUP = "novacore.ai"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "NovaCoreDeployment"
PLURAL = "novacoredeployments"

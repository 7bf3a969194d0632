"""`spec.expose` and `spec.networkPolicy`: who reaches the services."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from novacore_operator.api.fields import Labels, Model, rules

OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4_CIDR = rf"{OCTET}([.]{OCTET}){{3}}/(3[0-2]|[12]?[0-9])"
IPV6_CIDR = "[0-9a-f]{0,4}(:[0-9a-f]{0,4}){2,7}/(12[0-8]|1[01][0-9]|[1-9]?[0-9])"
"""Shape only: what it lets through in error, the API server refuses when the policy is written."""


class Expose(Model):
    """How the gateway is reached from outside the cluster."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.nodePort) || self.type == 'NodePort'",
                "expose.nodePort is only used with expose.type NodePort: set the type or remove the port",
            )
        )
    )

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        default="ClusterIP", description="Type of the public Service `novacore-gateway-public`."
    )
    node_port: int | None = Field(
        default=None,
        description="Port on every node, 30500 if absent.",
        json_schema_extra=rules(
            ("self >= 30000 && self <= 32767", "expose.nodePort must be between 30000 and 32767, or absent")
        ),
    )


class PodSelector(Model):
    """Labels that pods or namespaces must have. Empty: all of them."""

    match_labels: Labels = Field(default={}, description="Labels and their values; empty selects all.")


class IPBlock(Model):
    """A range of addresses outside the cluster."""

    cidr: str = Field(
        max_length=49,
        description="The range, such as 192.0.2.0/24 or 2001:db8::/32.",
        json_schema_extra=rules(
            (
                f"self.matches('^{IPV4_CIDR}$') || self.matches('^{IPV6_CIDR}$')",
                "networkPolicy.ingressFrom: ipBlock.cidr must be a range of addresses such as 192.0.2.0/24",
            )
        ),
    )


class Peer(Model):
    """Somebody who may reach the gateway."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.ipBlock) || has(self.namespaceSelector) || has(self.podSelector)",
                "networkPolicy.ingressFrom: an entry names nobody: set namespaceSelector, podSelector or ipBlock",
            ),
            (
                "!(has(self.ipBlock) && (has(self.namespaceSelector) || has(self.podSelector)))",
                "networkPolicy.ingressFrom: ipBlock stands alone: make one entry for it and one for the selectors",
            ),
        )
    )

    namespace_selector: PodSelector | None = Field(
        default=None, description="Pods of these namespaces; absent: of this resource's namespace."
    )
    pod_selector: PodSelector | None = Field(default=None, description="Pods with these labels; absent: all.")
    ip_block: IPBlock | None = Field(default=None, description="Addresses outside the cluster.")


class NetworkPolicySpec(Model):
    """Which pods may talk to which."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.enabled || !has(self.ingressFrom)",
                "networkPolicy.ingressFrom is only used with networkPolicy.enabled: enable it or remove the list",
            )
        )
    )

    enabled: bool = Field(default=True, description="Deny everything but the paths the services need.")
    ingress_from: list[Peer] | None = Field(
        default=None,
        max_length=32,
        description="Who may reach the gateway's public port; absent: anybody. A load balancer that does not keep the "
        "caller's address shows that of a node: allow the nodes' range then.",
        json_schema_extra=rules(
            (
                "size(self) >= 1",
                "networkPolicy.ingressFrom is empty: name who may reach the gateway, or remove it to let anybody",
            )
        ),
    )

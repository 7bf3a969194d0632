"""`spec.models`: the language model and the embedding model."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from novacore_operator.api.fields import Model, ObjectName, rules


class SecretKeyRef(Model):
    """One key of a Secret in the resource's namespace."""

    name: ObjectName = Field(description="Name of the Secret, in the namespace of this resource.")
    key: str = Field(
        default="apiKey", pattern=r"^[-._a-zA-Z0-9]+$", max_length=253, description="Key within the Secret."
    )


class Echo(Model):
    """The deterministic provider `echo`, for tests and load."""

    delay_ms: int = Field(
        default=5,
        description="Pause before each token, in milliseconds.",
        json_schema_extra=rules(("self >= 0 && self <= 10000", "echo.delayMs must be 0 to 10000")),
    )
    tokens: int = Field(
        default=32,
        description="Length of an answer in tokens.",
        json_schema_extra=rules(("self >= 1 && self <= 2000", "echo.tokens must be 1 to 2000")),
    )


class LLM(Model):
    """The language model."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!(self.provider in ['ollama', 'openai']) || has(self.baseURL)",
                "llm.provider ollama and openai need llm.baseURL: the address of the model server",
            ),
            (
                "!(self.provider in ['ollama', 'openai']) || has(self.model)",
                "llm.provider ollama and openai need llm.model: the name of the model there",
            ),
            (
                "!has(self.apiKeySecretRef) || self.provider == 'openai'",
                "llm.apiKeySecretRef is only used with llm.provider openai: set the provider or remove the key",
            ),
            (
                "!has(self.baseURL) || self.provider in ['ollama', 'openai']",
                "llm.baseURL is only used with llm.provider ollama or openai: set the provider or remove the address",
            ),
        )
    )

    provider: Literal["embedded", "ollama", "openai", "echo"] = Field(
        default="embedded",
        description="embedded: the small model in the image. ollama, openai: a server at baseURL. echo: for tests.",
    )
    model: str | None = Field(default=None, min_length=1, max_length=128, description="Name of the model at baseURL.")
    base_url: str | None = Field(
        default=None,
        alias="baseURL",
        max_length=512,
        description="Address of the model server, with scheme.",
        json_schema_extra=rules(
            ("self.matches('^https?://[^ ]+$')", "llm.baseURL must start with http:// or https://")
        ),
    )
    api_key_secret_ref: SecretKeyRef | None = Field(
        default=None, alias="apiKeySecretRef", description="Key for provider openai."
    )
    max_tokens: int = Field(
        default=2000,
        description="Longest answer in tokens.",
        json_schema_extra=rules(("self >= 1 && self <= 2000", "llm.maxTokens must be 1 to 2000")),
    )
    timeout_seconds: int = Field(
        default=120,
        description="Longest time one answer may take.",
        json_schema_extra=rules(("self >= 1 && self <= 600", "llm.timeoutSeconds must be 1 to 600")),
    )
    echo: Echo = Field(default=Echo(), description="Behaviour of provider echo.")


class Embeddings(Model):
    """The embedding model."""

    provider: Literal["minilm", "hash"] = Field(
        default="minilm", description="minilm: the model in the image. hash: words only, for tests."
    )


class Models(Model):
    """The models."""

    llm: LLM = Field(default=LLM(), description="The language model.")
    embeddings: Embeddings = Field(default=Embeddings(), description="The embedding model.")

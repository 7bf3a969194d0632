// Verify NovaCore user tokens: node verify.mjs JWKS_URL, one token a line on standard input. Node 20 or later, no package.

import { createPublicKey, verify } from "node:crypto";
import { createInterface } from "node:readline";

const ISSUER = "novacore-auth";
const AUDIENCE = "novacore-api";
const TOKEN_BYTES_MAX = 8192;
const LEEWAY_S = 30; // clocks differ
const LIFE_MAX_S = 900; // a stolen key must not make a token for a year
const KEYS_MAX_AGE_S = 60; // a revoked key is refused after this; the answer's Cache-Control says the same
const PAUSE_S = 10; // between two fetches for kids we do not know: forged tokens must not make us fetch
const SEGMENT = /^[A-Za-z0-9_-]+$/;

export class Refused extends Error {}

// Holds the public keys; one per process.
export class Verifier {
  #url;
  #maxAgeS;
  #keys = new Map();
  #fetchedAt = -Infinity;

  constructor(url, maxAgeS = KEYS_MAX_AGE_S) {
    this.#url = url;
    this.#maxAgeS = maxAgeS;
  }

  // Returns the claims of a valid token; throws Refused otherwise.
  async verify(token) {
    if (token.length > TOKEN_BYTES_MAX) throw new Refused("too long");
    const segments = token.split(".");
    if (segments.length !== 3 || !segments.every((segment) => SEGMENT.test(segment))) throw new Refused("no token");
    const header = parse(segments[0]);
    // The algorithm is ours to choose, never the token's.
    if (header.alg !== "ES256" || "crit" in header || "b64" in header) throw new Refused("header");
    const key = await this.#key(header.kid);
    const signed = Buffer.from(`${segments[0]}.${segments[1]}`);
    const signature = Buffer.from(segments[2], "base64url");
    if (!verify("sha256", signed, { key, dsaEncoding: "ieee-p1363" }, signature)) throw new Refused("signature");
    const claims = parse(segments[1]);
    check(claims, Date.now() / 1000);
    return claims;
  }

  async #key(kid) {
    if (typeof kid !== "string") throw new Refused("no kid");
    const ageS = performance.now() / 1000 - this.#fetchedAt;
    if (ageS >= this.#maxAgeS || (!this.#keys.has(kid) && ageS >= PAUSE_S)) await this.#fetch();
    if (!this.#keys.has(kid)) throw new Refused("unknown kid");
    return this.#keys.get(kid);
  }

  async #fetch() {
    this.#fetchedAt = performance.now() / 1000;
    const answer = await fetch(this.#url, { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`${this.#url}: status ${answer.status}`);
    const keys = new Map();
    for (const jwk of (await answer.json()).keys) {
      if (jwk.kty === "EC" && jwk.crv === "P-256") keys.set(jwk.kid, createPublicKey({ key: jwk, format: "jwk" }));
    }
    this.#keys = keys;
  }
}

function parse(segment) {
  let data;
  try {
    data = JSON.parse(Buffer.from(segment, "base64url").toString("utf8"));
  } catch {
    throw new Refused("no JSON");
  }
  if (data === null || typeof data !== "object" || Array.isArray(data)) throw new Refused("no object");
  return data;
}

function check(claims, now) {
  const { exp, iat, nbf, iss, aud, sub } = claims;
  if (!Number.isInteger(exp) || !Number.isInteger(iat) || typeof sub !== "string") throw new Refused("claims");
  if (iss !== ISSUER || aud !== AUDIENCE) throw new Refused("iss or aud");
  if (exp <= now - LEEWAY_S) throw new Refused("expired");
  if (iat > now + LEEWAY_S || (nbf !== undefined && !(nbf <= now + LEEWAY_S))) throw new Refused("not yet");
  if (exp - iat > LIFE_MAX_S) throw new Refused("lives too long");
  if (sub === "canary") throw new Refused("canary"); // proves a key to the platform itself, and is nobody
}

if (import.meta.filename === process.argv[1]) {
  const verifier = new Verifier(process.argv[2], Number(process.argv[3] ?? KEYS_MAX_AGE_S));
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      console.log(JSON.stringify({ sub: (await verifier.verify(line.trim())).sub }));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      console.log(JSON.stringify({ refused: error.message }));
    }
  }
}

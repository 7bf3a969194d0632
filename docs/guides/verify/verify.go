// Verify NovaCore user tokens: go run verify.go JWKS_URL, one token a line on standard input. Go 1.25 or later, no module.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	issuer        = "novacore-auth"
	audience      = "novacore-api"
	tokenBytesMax = 8192
	leewayS       = 30               // clocks differ
	lifeMaxS      = 900              // a stolen key must not make a token for a year
	keysMaxAge    = 60 * time.Second // a revoked key is refused after this; the answer's Cache-Control says the same
	pause         = 10 * time.Second // between two fetches for kids we do not know: forged tokens must not make us fetch
	halfBytes     = 32               // of an ES256 signature: r and s
)

// ErrRefused is what every token that is not valid ends in.
var ErrRefused = errors.New("refused")

func refuse(why string) error { return fmt.Errorf("%w: %s", ErrRefused, why) }

// Claims are those that a verifier needs. Pointers tell "absent" from zero.
type Claims struct {
	Iss string `json:"iss"`
	Aud string `json:"aud"`
	Sub string `json:"sub"`
	Iat *int64 `json:"iat"`
	Nbf *int64 `json:"nbf"`
	Exp *int64 `json:"exp"`
}

// Verifier holds the public keys; one per process.
type Verifier struct {
	URL    string
	MaxAge time.Duration

	mutex     sync.Mutex
	keys      map[string]*ecdsa.PublicKey
	fetchedAt time.Time
}

var client = http.Client{Timeout: 5 * time.Second}

// Verify returns the claims of a valid token. The error is ErrRefused, or that of a fetch.
func (v *Verifier) Verify(token string) (*Claims, error) {
	segments := strings.Split(token, ".")
	if len(token) > tokenBytesMax || len(segments) != 3 {
		return nil, refuse("no token")
	}
	var header map[string]any
	if err := parse(segments[0], &header); err != nil {
		return nil, err
	}
	_, crit := header["crit"]
	_, b64 := header["b64"]
	if header["alg"] != "ES256" || crit || b64 { // the algorithm is ours to choose, never the token's
		return nil, refuse("header")
	}
	kid, _ := header["kid"].(string)
	key, err := v.key(kid)
	if err != nil {
		return nil, err
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(segments[2])
	if err != nil || len(signature) != 2*halfBytes {
		return nil, refuse("signature")
	}
	hash := sha256.Sum256([]byte(segments[0] + "." + segments[1]))
	r, s := new(big.Int).SetBytes(signature[:halfBytes]), new(big.Int).SetBytes(signature[halfBytes:])
	if !ecdsa.Verify(key, hash[:], r, s) {
		return nil, refuse("signature")
	}
	var claims Claims
	if err := parse(segments[1], &claims); err != nil {
		return nil, err
	}
	return &claims, check(&claims, time.Now().Unix())
}

func (v *Verifier) key(kid string) (*ecdsa.PublicKey, error) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	age := time.Since(v.fetchedAt)
	if age >= v.MaxAge || (v.keys[kid] == nil && age >= pause) {
		if err := v.fetch(); err != nil {
			return nil, err
		}
	}
	if v.keys[kid] == nil {
		return nil, refuse("unknown kid")
	}
	return v.keys[kid], nil
}

func (v *Verifier) fetch() error {
	v.fetchedAt = time.Now()
	answer, err := client.Get(v.URL)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", v.URL, answer.StatusCode)
	}
	var set struct {
		Keys []struct{ Kty, Crv, Kid, X, Y string }
	}
	if err := json.NewDecoder(answer.Body).Decode(&set); err != nil {
		return err
	}
	keys := map[string]*ecdsa.PublicKey{}
	for _, jwk := range set.Keys {
		x, errX := base64.RawURLEncoding.DecodeString(jwk.X)
		y, errY := base64.RawURLEncoding.DecodeString(jwk.Y)
		if jwk.Kty != "EC" || jwk.Crv != "P-256" || errX != nil || errY != nil {
			continue
		}
		point := append(append([]byte{4}, x...), y...) // SEC 1, 2.3.3: uncompressed
		if key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point); err == nil {
			keys[jwk.Kid] = key
		}
	}
	v.keys = keys
	return nil
}

func parse(segment string, into any) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	if err != nil || json.Unmarshal(raw, into) != nil {
		return refuse("no JSON of that form")
	}
	return nil
}

func check(claims *Claims, now int64) error {
	switch {
	case claims.Exp == nil || claims.Iat == nil || claims.Sub == "":
		return refuse("claims")
	case claims.Iss != issuer || claims.Aud != audience:
		return refuse("iss or aud")
	case *claims.Exp <= now-leewayS:
		return refuse("expired")
	case *claims.Iat > now+leewayS || claims.Nbf != nil && *claims.Nbf > now+leewayS:
		return refuse("not yet")
	case *claims.Exp-*claims.Iat > lifeMaxS:
		return refuse("lives too long")
	case claims.Sub == "canary": // proves a key to the platform itself, and is nobody
		return refuse("canary")
	}
	return nil
}

func main() {
	verifier := &Verifier{URL: os.Args[1], MaxAge: keysMaxAge}
	if len(os.Args) > 2 {
		seconds, err := strconv.ParseFloat(os.Args[2], 64)
		if err != nil {
			log.Fatal(err)
		}
		verifier.MaxAge = time.Duration(seconds * float64(time.Second))
	}
	lines := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		claims, err := verifier.Verify(strings.TrimSpace(lines.Text()))
		switch {
		case errors.Is(err, ErrRefused):
			_ = out.Encode(map[string]string{"refused": err.Error()})
		case err != nil:
			log.Fatal(err)
		default:
			_ = out.Encode(map[string]string{"sub": claims.Sub})
		}
	}
}

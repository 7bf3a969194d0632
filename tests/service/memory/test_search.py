"""Search and context: what is found, why, and what never is."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any
from uuid import UUID

import pytest

from novacore.memory import repository
from novacore.memory.embeddings import HashModel
from novacore.memory.text import terms
from tests.kit.harness import RunningService
from tests.kit.keys import TestUser

from .conftest import Store

FACT = "The spare key is under the blue flower pot behind the greenhouse"


async def search(memory: RunningService, user: TestUser, query: str, **fields: Any) -> dict[str, Any]:
    answer = await memory.public.post("/memory/search", json={"query": query, **fields}, headers=memory.headers(user))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_finds_a_memory_as_soon_as_it_is_stored_and_says_why(
    memory: RunningService, user: TestUser, store: Store
) -> None:
    for n in range(5):
        await store(f"note {n} about the weather in town {n}")
    made = await store(FACT)
    found = await search(memory, user, "where is the spare key", limit=3)
    assert found["query"] == "where is the spare key"
    assert found["total"] == 6
    assert len(found["results"]) == 3
    best = found["results"][0]
    assert best["id"] == made["id"]
    assert 0.9 < best["similarity_score"] <= 1
    assert set(best["reasons"]) == {"lexical", "vector", "cosine", "bm25", "neighbours", "recency", "access"}
    assert best["reasons"]["lexical"] == 1
    scores = [row["similarity_score"] for row in found["results"]]
    assert scores == sorted(scores, reverse=True)


async def test_a_users_search_counts_an_access_and_a_services_does_not(
    memory: RunningService, user: TestUser, store: Store
) -> None:
    await store(FACT)
    assert (await search(memory, user, "spare key"))["results"][0]["access_count"] == 1
    answer = await memory.public.post(
        "/memory/search", json={"query": "spare key"}, headers=memory.headers(service="intelligence", act_for=user.id)
    )
    assert answer.json()["results"][0]["access_count"] == 1
    for url in ("/memory/context?q=spare key", "/memory/context"):
        await memory.public.get(url, headers=memory.headers(user))
    listed = await memory.public.get("/memory", headers=memory.headers(user))
    assert listed.json()["memories"][0]["access_count"] == 1


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, {"a", "b", "c"}),
        ({"tier": "itm"}, {"b"}),
        ({"memory_type": "task"}, {"c"}),
        ({"min_confidence": 0.6}, {"a"}),
        ({"tier": "stm"}, set()),
    ],
)
async def test_filters_and_total_agree(
    memory: RunningService, user: TestUser, store: Store, filters: dict[str, Any], expected: set[str]
) -> None:
    ids = {
        (await store("apple pie", confidence_score=0.8))["id"]: "a",
        (await store("apple cake", tier="itm", confidence_score=0.2))["id"]: "b",
        (await store("apple tart", type="task"))["id"]: "c",
    }
    found = await search(memory, user, "apple", **filters)
    assert {ids[row["id"]] for row in found["results"]} == expected
    assert found["total"] == len(expected)


@pytest.mark.parametrize(
    "wrong", [{"query": ""}, {"query": "x" * 1001}, {"query": "x", "limit": 0}, {"query": "x", "top_k": 3}]
)
async def test_refuses_a_search_out_of_bounds(memory: RunningService, user: TestUser, wrong: dict[str, Any]) -> None:
    answer = await memory.public.post("/memory/search", json=wrong, headers=memory.headers(user))
    assert answer.status_code == 400


@pytest.mark.parametrize("odd", ["!!!", "' OR 1=1 --", "the of and", "日本語", "𝔘𝔫𝔦", "%_\\", "\u200b"])
async def test_odd_queries_are_just_queries(memory: RunningService, user: TestUser, store: Store, odd: str) -> None:
    await store(FACT)
    assert (await search(memory, user, odd))["total"] == 1


async def test_a_neighbouring_turn_lifts_the_answer(memory: RunningService, user: TestUser, store: Store) -> None:
    """The question holds the words, the answer beside it holds the fact."""
    for n in range(6):
        await store(f"small talk number {n}", session_id="talk", type="conversation")
    await store("What did the vet say about Rufus?", session_id="talk", type="conversation")
    answer = await store("He only needs rest, no surgery.", session_id="talk", type="conversation")
    elsewhere = await store("He wants tea, no coffee.", session_id="other", type="conversation")
    found = await search(memory, user, "vet Rufus", limit=20)
    order = [row["id"] for row in found["results"]]
    assert order.index(answer["id"]) == 1
    assert order.index(elsewhere["id"]) > 1
    reasons = {row["id"]: row["reasons"] for row in found["results"]}
    assert reasons[answer["id"]]["neighbours"] > 0
    assert reasons[elsewhere["id"]]["neighbours"] == 0


async def test_scores_are_those_of_the_formula(memory: RunningService, user: TestUser, store: Store) -> None:
    """BM25 and cosine computed a second time, in Python, from the same texts."""
    texts = ["red fox red barn", "the red house", "a blue house by the sea", "fox", "green and blue"]
    ids = [(await store(text, session_id="s"))["id"] for text in texts]
    query = "red fox house"
    documents = [Counter(terms(text)) for text in texts]
    mean = sum(sum(document.values()) for document in documents) / len(texts)

    def bm25(document: Counter[str]) -> float:
        total = 0.0
        for term in set(terms(query)):
            df = sum(term in other for other in documents)
            tf, length = document[term], sum(document.values())
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            total += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / mean))
        return total

    plain = [bm25(document) for document in documents]
    beside = [sum(plain[m] for m in (n - 1, n + 1) if 0 <= m < len(texts)) for n in range(len(texts))]
    lexical = [own + 0.3 * around for own, around in zip(plain, beside, strict=True)]
    vectors = HashModel().encode([*texts, query])
    cosine = [float(vectors[n] @ vectors[-1]) for n in range(len(texts))]
    vector = [cosine[0], *((cosine[n] + cosine[n - 1]) / 2 for n in range(1, len(texts)))]

    def scaled(values: list[float]) -> list[float]:
        return [(value - min(values)) / (max(values) - min(values)) for value in values]

    expected = [
        0.6 * one + 0.4 * two + 0.02 for one, two in zip(scaled(lexical), scaled(vector), strict=True)
    ]  # 0.02: all are new
    found = {row["id"]: row for row in (await search(memory, user, query, limit=10))["results"]}
    for n, memory_id in enumerate(ids):
        assert found[memory_id]["reasons"]["bm25"] == pytest.approx(plain[n], abs=2e-3)
        assert found[memory_id]["reasons"]["cosine"] == pytest.approx(cosine[n], abs=2e-3)
        assert found[memory_id]["similarity_score"] == pytest.approx(min(1, expected[n]), abs=5e-3)


async def test_frequencies_and_totals_follow_deletes(
    memory: RunningService, user: TestUser, store: Store, admin_conn: Any
) -> None:
    keep = await store("alpha beta beta")
    gone = await store("alpha gamma")
    await memory.public.delete(f"/memory/delete/{gone['id']}", headers=memory.headers(user))
    df = {row["term"]: row["df"] for row in await admin_conn.fetch("SELECT term, df FROM memory.memory_df")}
    assert df == {"alpha": 1, "beta": 1}
    stats = await admin_conn.fetchrow("SELECT documents, total_terms FROM memory.user_stats")
    assert tuple(stats) == (1, 3)
    assert await admin_conn.fetchval("SELECT count(*) FROM memory.memory_terms") == 2
    await memory.public.delete(f"/memory/delete/{keep['id']}", headers=memory.headers(user))
    assert await admin_conn.fetchval("SELECT count(*) FROM memory.memory_df") == 0


async def test_a_planted_fact_among_500_reflections_reaches_the_context(
    memory: RunningService, user: TestUser, store: Store, admin_conn: Any
) -> None:
    """W17: reflections are hidden from every read, unbilled, and do not push the fact out."""
    worker = memory.headers(service="reflection-worker", act_for=user.id)
    for n in range(500):
        body = {
            "run_id": str(UUID(int=n + 1)), "self_assessment": f"I talked about the spare key and the flower pot {n}",
            "alignment_score": 0.9, "emotional_weight": 0.8, "improvement_notes": "spare key",
        }  # fmt: skip
        answer = await memory.internal.post("/internal/memory/reflections", json=body, headers=worker)
        assert answer.status_code == 201
    for n in range(20):
        await store(f"weather report {n}", confidence_score=0.9)
    planted = await store(FACT, confidence_score=0.95)
    assert await admin_conn.fetchval("SELECT count(*) FROM memory.memories WHERE visibility = 'system'") == 500

    context = (
        await memory.public.post(
            "/memory/context", json={"query": "Where did I leave the spare key?", "limit": 5},
            headers=memory.headers(service="intelligence", act_for=user.id),
        )
    ).json()  # fmt: skip
    assert context["ltm"][0]["id"] == planted["id"]
    assert context["ltm"][0]["input"] == FACT
    headers = memory.headers(user)
    assert (await memory.public.get("/memory?limit=100", headers=headers)).json()["total"] == 21
    assert (await memory.public.get("/memory/list?type=reflection", headers=headers)).json()["total"] == 0
    assert (await search(memory, user, "flower pot"))["total"] == 21
    assert (await memory.public.get("/memory/stats", headers=headers)).json()["total_memories"] == 21
    assert (await memory.public.get("/memory/usage", headers=headers)).json()["memory_count"] == 21
    hidden = await admin_conn.fetchval("SELECT id FROM memory.memories WHERE visibility = 'system' LIMIT 1")
    assert (await memory.public.get(f"/memory/retrieve/{hidden}", headers=headers)).status_code == 404
    assert (await memory.public.delete(f"/memory/delete/{hidden}", headers=headers)).status_code == 404


async def test_context_has_its_shape_and_bounds(memory: RunningService, user: TestUser, store: Store) -> None:
    for n in range(8):
        await memory.public.post(
            "/memory/stm/store?session_id=s", json={"input": f"q{n}", "output": f"a{n}"}, headers=memory.headers(user)
        )
    itm = await store("i" * 300, tier="itm", outcome="success")
    sure = await store("sure", confidence_score=0.71)
    unstated = await store("unstated")
    await store("doubtful", confidence_score=0.7)
    await store("fleeting", tier="stm")
    for url in ("/memory/context?session_id=s", "/memory/context?session_id=s&q=sure"):
        context = (await memory.public.get(url, headers=memory.headers(user))).json()
        assert set(context) == {"stm", "itm", "ltm", "principles"}
        assert [turn["input"] for turn in context["stm"]] == ["q3", "q4", "q5", "q6", "q7"]
        assert context["itm"] == [
            {"id": itm["id"], "type": "lesson", "input": "i" * 200, "outcome": "success", "access_count": 0}
        ]
        assert {row["id"]: row["confidence"] for row in context["ltm"]} == {sure["id"]: 0.71, unstated["id"]: 1.0}
    assert context["ltm"][0]["id"] == sure["id"]  # with a query: the best first


async def test_vectors_of_another_model_are_not_compared(
    memory: RunningService, user: TestUser, store: Store, admin_conn: Any
) -> None:
    made = await store(FACT)
    await admin_conn.execute("UPDATE memory.memories SET model_id = 'older'")
    best = (await search(memory, user, "spare key"))["results"][0]
    assert best["id"] == made["id"]
    assert best["reasons"]["cosine"] == 0


@pytest.mark.model
@pytest.mark.parametrize("settings", [{"embeddings": {"provider": "minilm"}, "sweep_seconds": 3600}])
async def test_meaning_is_found_without_a_shared_word(memory: RunningService, user: TestUser, store: Store) -> None:
    for text in ("The car needs new tyres.", "We paid the electricity bill.", "Grandma baked an apple cake."):
        await store(text)
    made = await store("My puppy was vaccinated on Monday.")
    assert (await search(memory, user, "veterinarian visit of the dog"))["results"][0]["id"] == made["id"]


async def test_the_search_reads_by_index(memory: RunningService, user: TestUser, store: Store) -> None:
    await store(FACT)
    assert memory.platform.db is not None
    vector = [0.0] * 383 + [1.0]
    async with memory.platform.db.transaction(user.id) as conn:
        await conn.execute("SET LOCAL enable_seqscan = off")
        plan = await conn.fetch(
            "EXPLAIN " + repository._SEARCH, user.id, vector, ["key"], "hash-384", None, None, None, None, 10, False
        )
    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan" not in text, text

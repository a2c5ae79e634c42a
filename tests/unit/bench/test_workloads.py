from tamis.bench.workloads import make_workload


def test_a_workload_has_the_same_texts_for_the_same_seed_only() -> None:
    assert make_workload("rag-mix", 3, seed=1) == make_workload("rag-mix", 3, seed=1)
    assert make_workload("rag-mix", 3, seed=1) != make_workload("rag-mix", 3, seed=2)
    assert len(make_workload("long", 3, seed=1).documents[0].split()) >= 400
    assert len(make_workload("short", 3, seed=1).documents[0].split()) <= 60

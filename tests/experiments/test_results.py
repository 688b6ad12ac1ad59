"""Tables with a known truth, small ones by hand, and independent computations with scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lalib.experiments import results
from lalib.experiments.results import against_random, interval

COUNTS = range(20, 101, 20)
LONG = range(20, 501, 20)


def learning(rates, seeds=10, noise=0.0, seed=0, n_classes=3):
    """A table of compare: accuracy 1 - exp(-rate n / 100) plus noise; random (rate 1) goes on to 500 labels."""
    rng, rows = np.random.default_rng(seed), []
    start = rng.normal(0, noise, seeds)  # shared initial labels: the same accuracy for every strategy
    for strategy, rate in rates.items():
        for s in range(seeds):
            for i, n in enumerate(LONG if strategy == "random" else COUNTS):
                curve = 1 - np.exp(-rate * n / 100) + rng.normal(0, noise) if i else 0.18 + start[s]
                lists = {"picked": rng.integers(0, 999, 20).tolist(), "counts": rng.integers(0, 9, n_classes).tolist()}
                lists["confusion"] = rng.integers(0, 99, (n_classes, n_classes)).tolist()
                row = {"strategy": strategy, "seed": s, "round": i, "labels": n, "accuracy": float(curve)}
                rows.append(row | {"train_seconds": 0.1, "select_seconds": 0.0} | lists)
    return pd.DataFrame(rows)


def curves(values, counts=(10, 20, 30)):
    """{strategy: [[accuracy at each number of labels] of each seed]} as a table."""
    return pd.DataFrame(
        [
            {"strategy": s, "seed": i, "round": r, "labels": n, "accuracy": v}
            for s, runs in values.items()
            for i, run in enumerate(runs)
            for r, (n, v) in enumerate(zip(counts, run, strict=False))
        ]
    )


def _table(values, **cell):
    """values: {strategy: accuracy of seed 0, 1, ...}"""
    cell = {"ratio": 1.0, "labels": 100} | cell
    return pd.DataFrame(
        [{"strategy": s, "seed": i, "accuracy": v, **cell} for s, row in values.items() for i, v in enumerate(row)]
    )


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_interval_against_scipy(confidence):
    values = np.random.default_rng(0).normal(3, 2, 7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert interval(values, confidence) == pytest.approx((values.mean(), expected.low, expected.high))


def test_interval_by_hand():
    assert interval([1, 2, 3]) == pytest.approx((2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert interval([0.5, 0.5]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_interval_of_too_few(values):
    with pytest.raises(ValueError, match=f"an interval needs at least 2 values, got {len(values)}"):
        interval(values)


def test_against_random_by_hand():
    table = pd.concat(
        [
            _table({"random": [0.5, 0.6, 0.7], "mine": [0.6, 0.6, 0.9]}),
            _table({"random": [0.5, 0.6, 0.7], "mine": [0.4, 0.5, 0.6]}, labels=1000),
        ]
    )
    frame = against_random(table.sample(frac=1, random_state=0))  # the order of the rows does not matter
    assert len(frame) == 4
    row = frame.set_index(["ratio", "labels", "strategy"]).loc[(1.0, 100, "mine")]
    half = 4.302653 * 0.1 / 3**0.5  # differences 0.1, 0, 0.2
    assert row["mean"] == pytest.approx(0.7)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert (row["wins"], row["seeds"]) == (2, 3)
    row = frame.set_index(["labels", "strategy"]).loc[(1000, "mine")]
    assert (row["difference"], row["low"], row["high"], row["wins"]) == pytest.approx((-0.1, -0.1, -0.1, 0))
    random = frame[frame["strategy"] == "random"]
    assert (random["difference"] == 0).all()


def test_against_another_baseline_by_one_column():
    table = _table({"old": [1.0, 2.0], "new": [2.0, 4.0]}).rename(columns={"accuracy": "score"})
    frame = against_random(table, by=["labels"], value="score", baseline="old")
    assert list(frame)[:2] == ["labels", "strategy"]
    assert frame.set_index("strategy")["difference"]["new"] == 1.5


@pytest.mark.parametrize(
    "values",
    [
        {"random": [0.5, 0.6, 0.7], "mine": [0.6, 0.6]},
        {"random": [0.5, 0.6], "mine": [0.6, 0.6, 0.9]},
        {"mine": [0.6, 0.6, 0.9]},
    ],
)
def test_what_is_not_paired_is_an_error(values):
    with pytest.raises(
        ValueError, match=r"every strategy needs the same seeds as 'random': they are not paired in \(1"
    ):
        against_random(_table(values))


def test_a_seed_that_is_there_twice_is_an_error():
    table = _table({"random": [0.5, 0.6], "mine": [0.6, 0.6]})
    with pytest.raises(ValueError, match=r"'random' comes more than once with seed 0 and ratio 1\.0 and labels 100"):
        against_random(pd.concat([table, table]))


def test_p_per_number_of_labels_and_holm_within_each():
    table = learning({"random": 1, "a": 2, "b": 1.05}, noise=0.02)
    frame = against_random(table, by=["labels"]).set_index(["labels", "strategy"])
    wide = table.pivot(index=["labels", "seed"], columns="strategy", values="accuracy")
    for labels in COUNTS[1:]:
        p = [stats.wilcoxon(wide.loc[labels, s] - wide.loc[labels, "random"]).pvalue for s in "ab"]
        assert frame.loc[labels].loc[["a", "b"], "p"].tolist() == pytest.approx(p)
        holm = [min(1, max(2 * min(p), each)) for each in p]  # of two: the smaller doubled, the larger not below it
        assert frame.loc[labels].loc[["a", "b"], "p_holm"].tolist() == pytest.approx(holm)
    assert frame.loc[20].loc[["a", "b"], "p"].tolist() == [1, 1]  # the same initial labels
    assert frame.xs("random", level="strategy")[["p", "p_holm"]].isna().all(axis=None)
    assert (frame["wins"] + frame["ties"] + frame["losses"] == frame["seeds"]).all()


def test_by_one_column_given_as_text_or_in_a_list():
    table = learning({"random": 1, "a": 2}, noise=0.02)
    pd.testing.assert_frame_equal(against_random(table, by="labels"), against_random(table, by=["labels"]))


def test_t_in_place_of_wilcoxon():
    table = _table({"random": [0.5, 0.6, 0.7], "mine": [0.6, 0.65, 0.9]})
    p = against_random(table, test="t").set_index("strategy")["p"]["mine"]
    assert p == pytest.approx(stats.ttest_rel([0.6, 0.65, 0.9], [0.5, 0.6, 0.7]).pvalue)
    with pytest.raises(ValueError, match="test must be one of 'wilcoxon', 't', got 'z'"):
        against_random(table, test="z")


# ---------------------------------------------------------------- curves


def test_curve_data_against_scipy():
    table = learning({"random": 1, "a": 2}, seeds=4, noise=0.03)
    frame = results.curve_data(table.sample(frac=1, random_state=1)).set_index(["strategy", "labels"])
    for (strategy, labels), part in table.groupby(["strategy", "labels"]):
        row = frame.loc[strategy, labels]
        expected = stats.ttest_1samp(part["accuracy"], 0).confidence_interval()
        assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
        assert (row["mean"], row["seeds"]) == (pytest.approx(part["accuracy"].mean()), 4)


def test_curve_data_of_one_seed_and_of_unfinished_runs():
    frame = results.curve_data(curves({"b": [[0.1, 0.2]], "a": [[0.1, 0.2, 0.3], [0.3]]}))
    assert frame["strategy"].tolist() == ["b", "b", "a", "a", "a"]
    assert frame["labels"].tolist() == [10, 20, 10, 20, 30]
    assert frame["seeds"].tolist() == [1, 1, 2, 1, 1]
    assert frame["low"].notna().tolist() == [False, False, True, False, False]
    assert frame["mean"].tolist() == pytest.approx([0.1, 0.2, 0.2, 0.2, 0.3])


# ---------------------------------------------------------------- summary


def test_summary_by_hand():
    """AULC by trapezoids over 10, 20, 30: (a / 2 + b + c / 2) / 2; the fourth count of random does not enter."""
    runs = {"random": [[0.2, 0.4, 0.6, 0.8], [0.2, 0.3, 0.4, 0.6]], "mine": [[0.2, 0.5, 0.8], [0.2, 0.5, 0.6]]}
    frame = results.summary(curves(runs, (10, 20, 30, 40))).set_index("strategy")
    assert frame.index.tolist() == ["mine", "random"]
    mine, random = frame.loc["mine"], frame.loc["random"]
    assert (mine["aulc"], random["aulc"]) == pytest.approx(((0.5 + 0.45) / 2, (0.4 + 0.3) / 2))
    assert (mine["final"], mine["labels"], mine["seeds"]) == (pytest.approx(0.7), 30, 2)
    half = 12.706205 * np.std([0.1, 0.15], ddof=1) / 2**0.5
    assert (mine["difference"], mine["low"], mine["high"]) == pytest.approx((0.125, 0.125 - half, 0.125 + half))
    assert mine["saving"] == pytest.approx(40 / 30)  # random's mean curve meets 0.7 at 40
    assert (mine["wins"], mine["ties"], mine["losses"], mine["p"]) == (2, 0, 0, 0.5)
    assert random[["p", "p_holm", "saving"]].isna().all()
    assert (random["ties"], random["bound"]) == (2, "")


def test_summary_against_independent_computations():
    table = learning({"random": 1, "a": 1.3, "b": 1.03, "c": 0.8}, noise=0.03)
    frame = results.summary(table).set_index("strategy")
    part = table[table["labels"] <= 100].sort_values("labels")
    areas = (
        part.groupby(["strategy", "seed"])["accuracy"].agg(lambda y: np.trapezoid(y, dx=20) / 80).unstack("strategy")
    )
    difference = areas.sub(areas["random"], axis=0)
    assert frame["aulc"].to_dict() == pytest.approx(areas.mean().to_dict())
    assert frame["aulc"].is_monotonic_decreasing
    p = {s: stats.wilcoxon(difference[s]).pvalue for s in "abc"}
    assert frame["p"].drop("random").to_dict() == pytest.approx(p)
    low, mid, high = sorted(p, key=p.get)
    steps = np.maximum.accumulate([3 * p[low], 2 * p[mid], p[high]])
    assert frame.loc[[low, mid, high], "p_holm"].tolist() == pytest.approx(np.minimum(steps, 1))
    assert frame["wins"].to_dict() == (difference > 0).sum().to_dict()
    assert frame["losses"].to_dict() == (difference < 0).sum().to_dict()


def test_a_strategy_equal_to_the_baseline_ties_with_p_1():
    table = learning({"random": 1}, noise=0.02)
    frame = results.summary(pd.concat([table, table.assign(strategy="twin")])).set_index("strategy").loc["twin"]
    assert (frame["p"], frame["p_holm"], frame["ties"], frame["wins"]) == (1, 1, 10, 0)
    assert (frame["difference"], frame["low"], frame["high"]) == (0, 0, 0)


def test_with_one_number_of_labels_the_area_is_the_value():
    frame = results.summary(curves({"random": [[0.1], [0.2]], "a": [[0.3], [0.2]]}))
    assert frame.set_index("strategy")["aulc"].to_dict() == pytest.approx({"a": 0.25, "random": 0.15})


def test_summary_of_another_value_against_another_baseline():
    table = learning({"random": 1, "a": 2}, noise=0.01).rename(columns={"accuracy": "auc"})
    frame = results.summary(table, value="auc", baseline="a").set_index("strategy")
    assert frame.loc["random", "difference"] < 0
    assert frame.loc["random", "saving"] == pytest.approx(0.5, abs=0.05)
    assert np.isnan(frame.loc["a", "p"])


# ---------------------------------------------------------------- label saving


def test_label_saving_finds_the_truth():
    """1 - exp(-2 n / 100) at 100 labels is what random reaches at 200; 0.5 likewise at 50."""
    table = learning({"random": 1, "twice": 2, "half": 0.5})
    frame = results.label_saving(table).set_index("strategy")
    assert frame["saving"].to_dict() == pytest.approx({"twice": 2, "half": 0.5}, abs=0.01)
    assert np.allclose(frame["needed"], frame["saving"] * 100)
    assert frame["low"].to_dict() == frame["high"].to_dict() == pytest.approx(frame["saving"].to_dict())
    assert not frame["censored"].any()
    assert set(frame["bound"]) == {""}


def test_label_saving_with_noise_and_its_interval():
    """Out of 40 tables with a true saving of 2, 95 % intervals of 8 seeds hold it in all but a few."""
    hits, found = 0, []
    for seed in range(40):
        row = results.label_saving(learning({"random": 1, "a": 2}, 8, noise=0.02, seed=seed), resamples=400).iloc[0]
        found.append(row["saving"])
        hits += row["low"] <= 2 <= row["high"]
    assert np.mean(found) == pytest.approx(2, abs=0.05)
    assert hits >= 34


def test_label_saving_beyond_the_run_of_random_is_a_bound():
    table = learning({"random": 1, "best": 8}, noise=0.001)
    row = results.label_saving(table).iloc[0]
    assert (row["censored"], row["bound"], row["needed"], row["saving"]) == (True, "at least", 500, 5)
    assert (row["low"], row["high"]) == (5, np.inf)
    row = results.label_saving(table[(table["strategy"] != "random") | (table["labels"] <= 300)]).iloc[0]
    assert row["saving"] == 3


def test_an_interval_may_be_open_where_the_estimate_is_not():
    table = learning({"random": 1, "a": 3.7}, noise=0.02)
    row = results.label_saving(table).iloc[0]
    assert not row["censored"]
    assert row["low"] < row["saving"] < 5 < row["high"] == np.inf


def test_label_saving_below_where_random_starts_is_at_most():
    table = curves({"random": [[0.5, 0.6], [0.5, 0.7]], "bad": [[0.5, 0.3], [0.5, 0.4]]})
    row = results.label_saving(table).iloc[0]
    assert (row["bound"], row["saving"], row["censored"]) == ("at most", 0.5, False)
    assert (row["low"], row["high"]) == (0, 0.5)


def test_label_saving_at_every_number_of_labels():
    table = learning({"random": 1, "a": 2, "b": 1})
    frame = results.label_saving(table, labels="all")
    assert frame["labels"].tolist() == [*COUNTS, *COUNTS]
    a = frame[frame["strategy"] == "a"].set_index("labels")["saving"]
    assert a[20] == 1  # the same initial labels
    assert a[60] == pytest.approx(2, abs=0.01)
    one = results.label_saving(table, labels=60)
    assert one["saving"].tolist() == frame[frame["labels"] == 60]["saving"].tolist()
    assert results.label_saving(table)["labels"].tolist() == [100, 100]


def test_label_saving_is_the_same_again_and_its_draws_follow_the_seed():
    table = learning({"random": 1, "a": 2}, noise=0.02)
    pd.testing.assert_frame_equal(results.label_saving(table), results.label_saving(table))
    first, second = (results.label_saving(table, seed=seed).iloc[0] for seed in (0, 1))
    assert first["saving"] == second["saving"]
    assert first["low"] != second["low"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [(70, r"labels must be one of \[20, 40, 60, 80, 100\] for 'a', got 70"), ("every", "labels must be one of 'all'")],
)
def test_label_saving_where_there_is_no_value(labels, message):
    with pytest.raises(ValueError, match=message):
        results.label_saving(learning({"random": 1, "a": 2}), labels=labels)


def test_label_saving_of_the_baseline_alone():
    with pytest.raises(ValueError, match="label saving needs a strategy other than 'random', got no other"):
        results.label_saving(learning({"random": 1}))


# ---------------------------------------------------------------- penalty matrix, ranks


def test_penalty_matrix_against_pairwise_t_tests():
    table = learning({"random": 1, "a": 1.4, "b": 1.2}, seeds=5, noise=0.05)
    matrix = results.penalty_matrix(table)
    wide = table[table["labels"] <= 100].pivot(index=["labels", "seed"], columns="strategy", values="accuracy")
    for i in wide:
        for j in wide:
            t = [stats.ttest_rel(wide.loc[n, i], wide.loc[n, j]) for n in COUNTS[1:]] if i != j else []
            beats = sum(r.statistic > 2.776445 for r in t)  # the t value of [Ash2020] for five runs
            assert matrix.loc[i, j] == pytest.approx(beats / 5)
    assert matrix.loc["mean"].tolist() == pytest.approx(matrix.drop(index="mean").mean().tolist())
    assert 0 < matrix.loc["a", "random"] < 1
    assert matrix.loc["mean"].idxmin() == "a"


def test_penalty_matrix_adds_over_data_sets():
    one, two = learning({"random": 1, "a": 2}, noise=0.01), learning({"a": 1, "random": 2}, noise=0.01, seed=1)
    together = results.penalty_matrix(pd.concat([one.assign(data="one"), two.assign(data="two")]))
    apart = results.penalty_matrix(one) + results.penalty_matrix(two)
    pd.testing.assert_frame_equal(together, apart.loc[together.index, list(together)], check_names=False)
    assert together.loc["a", "random"] == together.loc["random", "a"] == pytest.approx(0.8)


def test_every_data_set_needs_the_same_strategies():
    table = pd.concat([learning({"random": 1, "a": 2}).assign(data="one"), learning({"random": 1}).assign(data="two")])
    with pytest.raises(ValueError, match="every data set needs the same strategies, but 'two' lacks 'a'"):
        results.ranks(table)


def test_ranks_share_ties_and_stand_in_order():
    values = {"a": [[0.1], [0.1], [0.5]], "b": [[0.3], [0.2], [0.6]], "c": [[0.3], [0.1], [0.4]]}
    frame = results.ranks(curves(values))
    assert list(frame) == ["b", "c", "a"]
    assert frame["b"].tolist() == [1.5, 1, 1]
    assert frame["c"].tolist() == [1.5, 2.5, 3]
    assert frame["a"].tolist() == [3, 2.5, 2]


def test_critical_difference_tells_apart_what_differs():
    table = learning({"random": 1, "a": 3, "b": 2.9, "c": 0.5}, seeds=20, noise=0.02)
    result = results.critical_difference(table)
    frame = results.ranks(table)
    assert dict(zip(result.strategies, result.ranks, strict=True)) == pytest.approx(frame.mean().to_dict())
    assert result.p == pytest.approx(stats.friedmanchisquare(*(frame[s] for s in frame)).pvalue)
    assert result.difference == pytest.approx(2.569 * (4 * 5 / 120) ** 0.5, abs=1e-3)  # q of [Demsar2006]
    assert ("a", "b") in result.groups
    assert not any({"a", "c"} <= set(group) for group in result.groups)
    assert (result.blocks, result.alpha) == (20, 0.05)


def test_blocks_are_seeds_of_every_data_set():
    table = pd.concat(learning({"random": 1, "a": 2, "b": 1}, noise=0.01, seed=s).assign(data=f"d{s}") for s in (0, 1))
    assert results.critical_difference(table).blocks == 20
    assert results.ranks(table).index.names == ["data", "seed"]


def test_critical_difference_of_two():
    with pytest.raises(ValueError, match="a critical difference needs at least 3 strategies, got 2"):
        results.critical_difference(learning({"random": 1, "a": 2}))


# ---------------------------------------------------------------- fluctuation, classes, confusion


def test_fluctuation_against_numpy_and_chi_square():
    table = learning({"random": 1, "a": 2}, noise=0.03)
    frame = results.fluctuation(table).set_index(["strategy", "labels"])
    part = table[(table["strategy"] == "a") & (table["labels"] == 60)]["accuracy"]
    row = frame.loc["a", 60]
    assert row["spread"] == pytest.approx(np.std(part, ddof=1))
    assert row["low"] == pytest.approx(row["spread"] * (9 / stats.chi2.ppf(0.975, 9)) ** 0.5)
    assert row["high"] == pytest.approx(row["spread"] * (9 / stats.chi2.ppf(0.025, 9)) ** 0.5)
    with pytest.raises(ValueError, match="a spread needs at least 2 seeds, got 1 of 'a' at 10 labels"):
        results.fluctuation(curves({"a": [[0.1]]}))


def test_fluctuation_ratio_finds_the_truth():
    table = learning({"random": 1}, seeds=20, noise=0.01)
    middle = table.groupby("labels")["accuracy"].transform("mean")
    calm = table.assign(strategy="calm", accuracy=middle + (table["accuracy"] - middle) / 2)
    other = learning({"random": 1}, seeds=20, noise=0.03, seed=1).assign(strategy="wild")
    frame = results.fluctuation_ratio(pd.concat([table, calm, other])).set_index("strategy")
    assert frame.loc["calm", ["ratio", "low", "high"]].tolist() == pytest.approx([0.5, 0.5, 0.5])
    assert frame.loc["wild", "low"] < 3 < frame.loc["wild", "high"] < 5
    assert frame.loc["wild", "low"] > 2
    assert frame.loc["random", ["ratio", "low", "high"]].tolist() == [1, 1, 1]


def test_fluctuation_ratio_of_too_few_seeds_or_of_none():
    with pytest.raises(ValueError, match="a ratio of fluctuations needs at least 5 seeds, got 4"):
        results.fluctuation_ratio(learning({"random": 1, "a": 2}, seeds=4))
    with pytest.raises(ValueError, match="'random' is the same in several seeds"):
        results.fluctuation_ratio(learning({"random": 1, "a": 2}))


def test_batch_classes_by_hand():
    table = pd.DataFrame({"strategy": "a", "seed": [0, 1, 0, 1], "round": [0, 0, 1, 1], "labels": [4, 4, 8, 8]})
    table["counts"] = [[4, 0], [2, 2], [0, 4], [1, 3]]
    frame = results.batch_classes(table, ["cat", "dog"])
    assert list(frame) == ["strategy", "round", "labels", "class", "count", "share"]
    assert frame["class"].tolist() == ["cat", "dog"] * 2
    assert frame["count"].tolist() == [3, 1, 0.5, 3.5]
    assert frame["share"].tolist() == [0.75, 0.25, 0.125, 0.875]
    assert frame["labels"].tolist() == [4, 4, 8, 8]
    assert results.batch_classes(table)["class"].tolist() == ["0", "1"] * 2
    with pytest.raises(ValueError, match="class_names must name all 2 classes, got 3 names"):
        results.batch_classes(table, ["cat", "dog", "cow"])


def test_confusion_is_summed_over_seeds():
    table = learning({"random": 1, "a": 2}, seeds=3)
    matrix = results.confusion(table, "a", class_names=["x", "y", "z"])
    part = table[(table["strategy"] == "a") & (table["round"] == 4)]
    assert (matrix.to_numpy() == np.sum([np.array(m) for m in part["confusion"]], axis=0)).all()
    assert (matrix.index.name, matrix.columns.name, list(matrix)) == ("true", "predicted", ["x", "y", "z"])
    pd.testing.assert_frame_equal(results.confusion(table, "a", -5), results.confusion(table, "a", 0))
    with pytest.raises(ValueError, match="round must be one of 0 to 4, or from the end, got 5"):
        results.confusion(table, "a", 5)
    with pytest.raises(ValueError, match="strategy must be one of 'random', 'a', got 'b'"):
        results.confusion(table, "b")


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["table.parquet", "table.csv"])
def test_a_table_comes_back_equal(tmp_path, name):
    table = learning({"random": 1 / 3, "NA": 2}, seeds=2, noise=0.1)
    table = table.assign(auc=[np.nan, *[1 / 3] * 59], recorded=[2 / 3, *[np.nan] * 59])
    path = results.save(table, tmp_path / name)
    assert path == tmp_path / name
    pd.testing.assert_frame_equal(results.load(path), table, check_exact=True)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    part = table[table["strategy"] == "NA"]
    results.save(part, path)  # replaces
    pd.testing.assert_frame_equal(results.load(path), part.reset_index(drop=True), check_exact=True)


@pytest.mark.parametrize("name", ["table.parquet", "table.csv"])
def test_a_failed_save_leaves_the_old_table(tmp_path, name, monkeypatch):
    table = learning({"a": 1}, seeds=1)
    path = results.save(table, tmp_path / name)
    before = path.read_bytes()

    def fail(self, target, **options):
        target.write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fail)
    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="No space left"):
        results.save(table, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("function", [lambda path: results.save(pd.DataFrame(), path), results.load])
def test_only_two_kinds_of_files(function):
    with pytest.raises(ValueError, match=r"path must end in .parquet or .csv, got 'table.xlsx'"):
        function("table.xlsx")


# ---------------------------------------------------------------- bad tables


PAIRED = [results.summary, results.label_saving, results.fluctuation_ratio]


@pytest.mark.parametrize("function", [*PAIRED, results.penalty_matrix, results.ranks])
def test_seeds_that_are_not_paired(function):
    table = learning({"random": 1, "a": 2})
    with pytest.raises(ValueError, match="every strategy needs the same seeds, but 'a' lacks seed 3"):
        function(table[(table["strategy"] != "a") | (table["seed"] != 3)])


@pytest.mark.parametrize("function", PAIRED)
def test_a_baseline_that_is_missing(function):
    with pytest.raises(ValueError, match="baseline must be one of 'a', 'b', got 'random'"):
        function(learning({"a": 2, "b": 1}))


@pytest.mark.parametrize("function", [*PAIRED, results.penalty_matrix, results.ranks])
def test_one_seed(function):
    with pytest.raises(ValueError, match="a paired comparison needs at least 2 seeds, got 1"):
        function(learning({"random": 1, "a": 2}, seeds=1))


@pytest.mark.parametrize("function", [*PAIRED, results.curve_data, results.fluctuation, results.batch_classes])
def test_bad_tables(function):
    table = learning({"random": 1, "a": 2})
    with pytest.raises(ValueError, match="'random' comes more than once with seed 0 and labels 20"):
        function(pd.concat([table, table]))
    with pytest.raises(ValueError, match=r"table must have rows and the columns .* missing: \['seed'\]"):
        function(table.drop(columns="seed"))
    with pytest.raises(ValueError, match="missing: rows"):
        function(table.iloc[:0])
    with pytest.raises(TypeError, match="table must be a pandas DataFrame, got list"):
        function([1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(bad):
    table = learning({"random": 1, "a": 2})
    table.loc[3, "accuracy"] = bad
    with pytest.raises(ValueError, match="accuracy must be finite, but 1 of 300 rows hold NaN or infinity"):
        results.summary(table)


def test_no_number_of_labels_in_common():
    table = pd.concat([curves({"random": [[0.1], [0.2]]}, (10,)), curves({"a": [[0.1], [0.2]]}, (11,))])
    with pytest.raises(ValueError, match="must share at least one number of labels, they share none"):
        results.summary(table)


EVERY = {  # each public function of a table, and the column of values that it needs
    "against_random": ("accuracy", lambda table: results.against_random(table, by=["labels"])),
    "batch_classes": ("counts", results.batch_classes),
    "confusion": ("confusion", lambda table: results.confusion(table, "a")),
    "critical_difference": ("accuracy", results.critical_difference),
    "curve_data": ("accuracy", results.curve_data),
    "fluctuation": ("accuracy", results.fluctuation),
    "fluctuation_ratio": ("accuracy", results.fluctuation_ratio),
    "label_saving": ("accuracy", results.label_saving),
    "penalty_matrix": ("accuracy", results.penalty_matrix),
    "ranks": ("accuracy", results.ranks),
    "summary": ("accuracy", results.summary),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_function_says_what_is_wrong_with_a_table(name):
    column, function = EVERY[name]
    table = learning({"random": 1, "a": 2, "b": 1.5}, noise=0.02)
    function(table)
    holes = table.astype({"labels": float}).assign(**{column: table[column].astype(object)})
    holes.loc[3, column] = np.nan
    message = "must hold a list in every row" if column in ("counts", "confusion") else "finite, but 1 of 350 rows"
    with pytest.raises((ValueError, TypeError), match=f"{column} must (be )?.*{message}|{column} {message}"):
        function(holes)
    for gap in ("strategy", "seed", "labels"):
        with pytest.raises(ValueError, match=f"{gap} must be finite, but 1 of 350 rows hold NaN or infinity"):
            function(table.assign(**{gap: table[gap].astype(object).where(np.arange(350) != 3)}))
        with pytest.raises(ValueError, match=rf"table must have rows and the columns .* missing: \['{gap}'\]"):
            function(table.drop(columns=gap))
    with pytest.raises(ValueError, match=f"missing: .*'{column}'"):
        function(table.drop(columns=column))
    with pytest.raises(TypeError, match=f"{column} must hold (numbers|a list in every row)"):
        function(table.assign(**{column: "much"}))
    with pytest.raises(TypeError, match="labels must hold numbers"):
        function(table.assign(labels=table["labels"].astype(str)))
    with pytest.raises(ValueError, match="comes more than once with seed 0 and labels 20"):
        function(pd.concat([table, table]))
    with pytest.raises(ValueError, match="missing: rows"):
        function(table.iloc[:0])
    for other in (None, [1], {"strategy": ["a"]}, "table.csv"):
        with pytest.raises(TypeError, match=f"table must be a pandas DataFrame, got {type(other).__name__}"):
            function(other)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda table: results.against_random(table, by=3), ValueError, r"missing: \[3\]"),
        (lambda table: results.against_random(table, by=[["labels"]]), ValueError, "missing: "),
        (lambda table: results.summary(table, value=["accuracy"]), ValueError, "missing: "),
        (lambda table: results.summary(table, confidence="high"), TypeError, "confidence must be a number, got 'high'"),
        (lambda table: results.label_saving(table, labels=60.5), TypeError, "labels must be a whole number, got 60.5"),
        (lambda table: results.label_saving(table, seed=-1), ValueError, "seed must be at least 0"),
        (lambda table: results.confusion(table, "a", "last"), TypeError, "round must be a whole number, got 'last'"),
        (
            lambda table: results.batch_classes(table, "xyz"),
            TypeError,
            "class_names must be a list of names, got 'xyz'",
        ),
        (lambda table: results.batch_classes(table.assign(counts=[[1]] + [[1, 2]] * 299)), ValueError, "one length"),
        (lambda table: results.batch_classes(table.assign(counts=[["a"]] * 300)), TypeError, "counts must hold "),
        (lambda table: results.interval(["a", "b"]), TypeError, "values must hold real numbers"),
        (lambda table: results.interval([1, np.nan]), ValueError, "values must be finite, got NaN or infinity"),
        (lambda table: results.save([1], "table.csv"), TypeError, "table must be a pandas DataFrame, got list"),
    ],
)
def test_arguments_that_cannot_be(call, error, message):
    with pytest.raises(error, match=message):
        call(learning({"random": 1, "a": 2}))


def test_numbers_of_any_kind():
    table = learning({"random": 1, "a": 2}, noise=0.02)
    pd.testing.assert_frame_equal(
        results.label_saving(table, labels=np.int64(60), resamples=np.int32(50), seed=np.array(3)),
        results.label_saving(table, labels=60, resamples=50, seed=3),
    )
    assert interval(pd.Series([1, 2, 3], index=[7, 8, 9])) == interval([1, 2, 3])
    results.confusion(table, "a", np.int64(-1))


@pytest.mark.parametrize("name", ["table.parquet", "table.csv"])
def test_a_file_that_is_no_table(name, tmp_path):
    for content in ("", "counts\n[1,\n"):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=f"{name} is not a table that save wrote: "):
            results.load(tmp_path / name)

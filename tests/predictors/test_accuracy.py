import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from predictors import gaussian_process as gp
from predictors.accuracy import FAMILIES, AccuracyPredictor, cross_validated_metrics
from predictors.features import Features, GenotypeFeatures
from search_spaces.space import Choice

CHOICES = [Choice(name=f"gene.{i}", values=(1, 2, 4)) for i in range(12)] + [Choice(name="one", values=(0,))]


def _vectors(num, seed=0):
    return np.random.default_rng(seed).integers(0, [len(c.values) for c in CHOICES], size=(num, len(CHOICES)))


def _additive(vectors):
    return 10 + np.sqrt(vectors) @ np.linspace(0.2, 2, len(CHOICES))


def _interacting(vectors):
    return _additive(vectors) + 2.0 * (vectors[:, 0] == vectors[:, 1]) + 2.0 * (vectors[:, 2] * vectors[:, 3])


def _features(vectors):
    return GenotypeFeatures(CHOICES).transform(vectors)


def test_features_are_one_column_a_value_the_rank_and_the_logarithm():
    choices = [Choice(name="a", values=("x", "y")), Choice(name="b", values=(1, 2, 3)), Choice(name="c", values=(0,))]
    features = GenotypeFeatures(choices).transform(
        np.array([[1, 2, 0], [0, 1, 0]]), {"macs": np.array([0.0, np.e - 1])}
    )
    assert features.tolist() == [[0, 1, 0, 0, 1, 1, 0], [1, 0, 0, 1, 0, 0.5, pytest.approx(1.0)]]
    assert GenotypeFeatures(choices[2:]).transform(np.zeros((4, 1), int)).shape == (4, 0)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_ranks_candidates_it_never_saw(family):
    train, test = _vectors(80), _vectors(100, seed=1)
    model = AccuracyPredictor(families=[family]).fit(_features(train), _interacting(train))
    predicted, std = model.predict(_features(test), return_std=True)
    assert np.corrcoef(predicted, _interacting(test))[0, 1] > 0.8
    assert (std > 0).all()
    assert (model.predict(_features(test)) == predicted).all()
    again = AccuracyPredictor(families=[family]).fit(_features(train), _interacting(train))
    assert (again.predict(_features(test)) == predicted).all()


def test_genes_with_equal_values_share_a_group_of_counts():
    choices = [Choice(name=name, values=("x", "y")) for name in "ab"] + [Choice(name="c", values=(1, 2, 3))]
    features = GenotypeFeatures(choices)
    vectors = np.array([[1, 1, 2], [0, 1, 0]])
    shared = 1 / np.sqrt(2)
    assert features.groups(num_numeric=3) == (8, 2, 3)
    assert features.transform(vectors) == pytest.approx(
        np.array([[0, 1, 0, 1, 0, 0, 1, 1, 0, 2 * shared], [1, 0, 0, 1, 1, 0, 0, 0, shared, shared]])
    )


def test_family_with_the_lowest_leave_one_out_error_is_chosen():
    vectors = _vectors(150)
    model = AccuracyPredictor().fit(_features(vectors), _interacting(vectors))
    assert model.family_ == min(model.errors_, key=model.errors_.__getitem__)
    assert model.errors_["gaussian-process"] < model.errors_["bayesian-ridge"]
    metrics = cross_validated_metrics(_features(vectors), _interacting(vectors))
    assert set(metrics) == set(FAMILIES)
    assert metrics["gaussian-process"]["kendall"] > metrics["bayesian-ridge"]["kendall"] > 0.5


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_constant_and_tiny_data_give_finite_predictions(family):
    for y in (np.full(5, 3.0), np.array([1.0, 1.0, 1.0, 1.0, 2.0])):
        vectors = _vectors(5)
        predicted, std = (
            AccuracyPredictor(families=[family]).fit(_features(vectors), y).predict(_features(vectors), True)
        )
        assert np.isfinite(predicted).all()
        assert np.isfinite(std).all()


def test_unknown_family_is_named():
    with pytest.raises(ValueError, match="unknown predictor family 'ridge'; available: bayesian-ridge"):
        AccuracyPredictor(families=["ridge"]).fit(np.eye(3), np.arange(3.0))


def test_gaussian_process_equals_scikit_learn_with_the_same_kernel():
    vectors = _vectors(40)
    X, y, new = _features(vectors), _interacting(vectors), _features(_vectors(20, seed=1))
    model = gp.GaussianProcess().fit(X, y)
    linear, smooth, length, noise = np.exp(model.log_parameters_)
    kernel = (
        ConstantKernel(linear) * DotProduct(sigma_0=0.0, sigma_0_bounds="fixed")
        + ConstantKernel(smooth) * RBF(length)
        + WhiteKernel(noise)
    )
    scaled = (X - model.center_) / model.spread_
    reference = GaussianProcessRegressor(kernel, optimizer=None, alpha=0.0).fit(scaled, (y - y.mean()) / y.std())
    mean, std = model.predict(new, return_std=True)
    expected, expected_std = reference.predict((new - model.center_) / model.spread_, return_std=True)
    np.testing.assert_allclose(mean, expected * y.std() + y.mean(), rtol=1e-6)
    np.testing.assert_allclose((std / y.std()) ** 2 + noise, expected_std**2, rtol=1e-6)
    inner = scaled @ scaled.T
    likelihood, _, _ = gp._negative_log_likelihood(
        model.log_parameters_, [(inner, gp._squared_distances(scaled, scaled, inner))], (y - y.mean()) / y.std()
    )
    constant = 20 * np.log(2 * np.pi)
    assert likelihood + constant == pytest.approx(-reference.log_marginal_likelihood_value_, rel=1e-6)


def test_gradient_of_the_likelihood_is_right():
    X = _features(_vectors(15))
    X = (X - X.mean(axis=0)) / 3
    y = _additive(_vectors(15))
    inner = X @ X.T
    arguments = ([(inner, gp._squared_distances(X, X, inner))] * 2, y - y.mean())
    for start in (np.log([1.0, 0.5, 1.0, 0.4, 0.2, 2.0, 0.1]), np.log([0.1, 2.0, 0.5, 1.0, 1.0, 1.0, 0.3])):
        error = check_grad(
            lambda p: gp._negative_log_likelihood(p, *arguments)[0],
            lambda p: gp._negative_log_likelihood(p, *arguments)[1],
            start,
        )
        assert error < 1e-3


def test_fitting_a_thousand_rows_takes_at_most_seconds():
    vectors = _vectors(1000)
    model = gp.GaussianProcess().fit(_features(vectors), _interacting(vectors))
    assert np.abs(model.predict(_features(vectors)) - _interacting(vectors)).mean() < 0.2


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_leave_one_out_equals_fits_without_each_row(family):
    X, y = _features(_vectors(25)), _interacting(_vectors(25))
    model = FAMILIES[family]((), ()).fit(X, y)
    left_out = model.leave_one_out()
    refitted = [_refit(model, np.delete(X, i, axis=0), np.delete(y, i)).predict(X[i : i + 1])[0] for i in range(25)]
    assert np.corrcoef(left_out, refitted)[0, 1] > 0.9


def _refit(model, X, y):
    """With the same few parameters where they can be set."""
    fresh = clone(model)
    return (fresh.set_params(log_parameters=model.log_parameters_) if hasattr(model, "log_parameters_") else fresh).fit(
        X, y
    )


def test_columns_of_tied_sets_are_those_of_genes_and_of_shared_values():
    choices = [Choice(name="a", values=("x", "y")), Choice(name="b", values=(1, 2, 3)), Choice(name="c", values=(0,))]
    assert GenotypeFeatures([*choices, choices[0]]).tied() == [[0, 1], [2, 3, 4, 5], [6, 7], [0, 6], [1, 7]]


def test_features_side_by_side_keep_their_groups_and_ties():
    vectors = _vectors(4)
    one, array = GenotypeFeatures(CHOICES).features(vectors), Features(np.ones((4, 2)), (2,))
    both, width = Features.joined([one, array, one]), one.columns.shape[1]
    assert np.array_equal(both.columns, np.concatenate([one.columns, array.columns, one.columns], axis=1))
    assert both.groups == (*one.groups, 2, *one.groups)
    assert both.tied == [*one.tied, *([column + width + 2 for column in tie] for tie in one.tied)]


def test_slope_along_relevances_is_right():
    X, y = _features(_vectors(15)), _additive(_vectors(15))
    features = GenotypeFeatures(CHOICES)
    model = gp.GaussianProcess(features.groups(), log_parameters=np.log([1, 0.5, 1, 0.4, 0.2, 2, 0.1])).fit(X, y)

    def at(log_relevance):
        scaled = model.X_ * np.exp(log_relevance / 2)
        products = model._products(scaled)
        value, _, outer = gp._negative_log_likelihood(model.log_parameters_, products, model.target_)
        return value, model._column_slopes(scaled, model.log_parameters_, products, outer)

    start = np.random.default_rng(0).normal(size=X.shape[1])
    assert check_grad(lambda p: at(p)[0], lambda p: at(p)[1], start) < 1e-3


def test_relevance_of_a_gene_that_does_nothing_is_low():
    vectors = _vectors(100)
    y = (vectors[:, 0] == vectors[:, 1]) + np.sqrt(vectors[:, 2])
    X, tied = _features(vectors), GenotypeFeatures(CHOICES).tied()
    plain, model = (gp.GaussianProcess(tied=sets).fit(X, y) for sets in ((), tied))
    relevance = (plain.spread_ / model.spread_) ** 2
    assert relevance[tied[5]].max() < 0.5 * relevance[tied[1]].max()
    new = _vectors(200, seed=1)
    expected = (new[:, 0] == new[:, 1]) + np.sqrt(new[:, 2])
    errors = [np.abs(m.predict(_features(new)) - expected).mean() for m in (plain, model)]
    assert errors[1] < 0.7 * errors[0]


def test_groups_of_features_have_length_scales_of_their_own():
    vectors = _vectors(120)
    X = _features(vectors)
    groups = GenotypeFeatures(CHOICES).groups()
    y = np.sin(3.0 * X[:, -1] * np.sqrt(12) / 2)  # how many genes have the last value
    errors = [np.abs(gp.GaussianProcess(g).fit(X[:80], y[:80]).predict(X[80:]) - y[80:]).mean() for g in (groups, ())]
    assert errors[0] < 0.5 * errors[1]


def test_compression_shortens_the_bad_tail_only_and_has_an_inverse():
    y = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 100.0])
    compression = gp.Compression(y)
    short = compression.forward(y)
    assert np.diff(short[:3]) == pytest.approx(np.diff(short[:3])[0] * np.ones(2))  # up to the median
    assert (np.diff(short[3:]) < 0.6 * np.diff(y[3:]) * (short[1] - short[0])).all()  # beyond it
    assert (np.diff(short) > 0).all()
    assert short[-1] - short[-2] < 10 * (short[1] - short[0])
    assert compression.back(short) == pytest.approx(y)
    assert np.isfinite(compression.back(np.array([-1e3, 1e3]))).all()

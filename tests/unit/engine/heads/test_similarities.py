import numpy as np

from tamis.engine.heads.similarities import products, project


def test_products_in_parts_are_the_product() -> None:
    chance = np.random.default_rng(3)
    for n_left, n_right in ((1, 1), (17, 900), (256, 700), (0, 5), (5, 0)):
        left = chance.normal(size=(n_left, 384)).astype(np.float32)
        right = chance.normal(size=(n_right, 384)).astype(np.float32)
        np.testing.assert_allclose(products(left, right), left @ right.T, rtol=1e-4, atol=1e-4)


def test_a_projection_in_parts_is_the_product() -> None:
    chance = np.random.default_rng(4)
    for n_tokens, hidden in ((1, 1), (700, 384), (0, 8), (27, 32), (3, 1024)):
        states = chance.normal(size=(n_tokens, hidden)).astype(np.float32)
        projection = chance.normal(size=(hidden, hidden)).astype(np.float32)
        np.testing.assert_allclose(
            project(states, projection), states @ projection, rtol=1e-4, atol=1e-3
        )

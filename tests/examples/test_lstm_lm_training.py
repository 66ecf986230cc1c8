"""The language model example: how it trains, and what its states go through."""

import argparse

import keras
import numpy as np
import pytest
from lm_runs import EXAMPLES, settings, states, write_folder


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import lstm_lm

        yield lstm_lm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("text"), train=700)


@pytest.fixture
def text(example, folder):
    """Settings of a tiny model, the streams of its text, and the vocabulary."""
    args = settings(example, data=folder, min_count=1)
    return args, *example.load_text(args)


def windows(example, streams, window):
    return example.lm_text.windows(streams, window)


def evaluate(example, model, streams, window):
    """The perplexity of a text, of a model that is compiled."""
    return model.evaluate(
        windows(example, streams, window),
        callbacks=[example.state_reset(model)],
        verbose=0,
        return_dict=True,
    )["perplexity"]


def compiled(example, text):
    args, _, vocabulary = text
    model = example.build_model(len(vocabulary), args.batch, args)
    metrics = [example.Perplexity()]
    model.compile(example.make_optimizer(args), example.crossentropy, metrics=metrics)
    return model


def test_perplexity_falls_each_epoch(example, text, tmp_path):
    """With the high rates of awd, far from q = 2, and in mixed precision."""
    _, streams, vocabulary = text
    high = {"preset": "awd", "q": 2.5, "learning_rate": 20.0}
    args = settings(example, layers=2, epochs=4, **high)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = example.build_model(len(vocabulary), args.batch, args)
    finally:
        keras.config.set_dtype_policy(before)
    assert model.compute_dtype == "bfloat16"
    history = example.train(model, streams, args, tmp_path / "history.csv")
    assert int(model.optimizer.iterations) >= 300
    # The mean over an epoch is finite only if each step's is.
    assert all(np.isfinite(figures).all() for figures in history.values())
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    for kind in ("", "val_", "test_"):
        assert (np.diff(history[f"{kind}perplexity"]) < 0).all()
    assert history["val_perplexity"][-1] < 85
    # What is reported of either text is that of the weights that the run leaves.
    found = {}
    for kind, split in {"val": "valid", "test": "test"}.items():
        found[kind] = evaluate(example, model, streams[split], args.window)
        reported = history[f"{kind}_perplexity"][-1]
        assert found[kind] == pytest.approx(reported, rel=1e-5)
    # Of two texts. In one epoch they may be alike by chance.
    both = history["val_perplexity"], history["test_perplexity"]
    assert not np.allclose(*both, rtol=1e-4)


class StateRecorder(keras.callbacks.Callback):
    """Notes the states where training and evaluation begin and end a batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def note(self, when):
        self.seen.append((when, states(self.model)))

    def on_epoch_begin(self, epoch, logs=None):
        self.note("epoch")

    def on_train_batch_begin(self, batch, logs=None):
        self.note("begin")

    def on_train_batch_end(self, batch, logs=None):
        self.note("end")

    def on_test_begin(self, logs=None):
        self.note("test")

    def on_test_batch_begin(self, batch, logs=None):
        self.note("begin")

    def on_test_batch_end(self, batch, logs=None):
        self.note("end")

    def on_train_end(self, logs=None):
        self.note("over")


@pytest.fixture(scope="module")
def fitted(example, folder):
    """A model after a fit, the streams, and what was noted of the fit."""
    keras.utils.set_random_seed(0)
    args = settings(example, data=folder, min_count=1)
    text = args, *example.load_text(args)
    streams, model, raw = text[1], compiled(example, text), []
    # The weights that the last step of an epoch left.
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: raw.append(model.get_weights())
    )
    recorder = StateRecorder()
    history = model.fit(
        windows(example, streams["test"], 10),
        validation_data=windows(example, streams["valid"], 10),
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[
            example.state_reset(model),
            keras.callbacks.SwapEMAWeights(),
            note,
            recorder,
        ],
    ).history
    return argparse.Namespace(
        model=model, streams=streams, raw=raw, seen=recorder.seen, history=history
    )


@pytest.mark.onednn
def test_perplexity_does_not_depend_on_the_length_of_windows(example, fitted):
    model, streams = fitted.model, fitted.streams["valid"][:, :32]
    # The last window is of one word, as all are then.
    assert (streams.shape[1] - 1) % 10 == 1
    expected = evaluate(example, model, streams, 10)
    assert evaluate(example, model, streams, 1) == pytest.approx(expected, rel=1e-5)
    # By hand, in one window and each word once.
    example.reset_states(model)
    logits = np.asarray(model(streams[:, :-1]), "float64")
    chosen = np.take_along_axis(logits, streams[:, 1:, None], -1)[..., 0]
    losses = np.log(np.exp(logits).sum(-1)) - chosen
    assert expected == pytest.approx(np.exp(losses.mean()), rel=1e-5)
    # It does depend on whether the states are carried.
    example.reset_states(model)
    alone = [
        np.asarray(example.crossentropy(y, model(x))).mean()
        for x, y in windows(example, streams, 1).as_numpy_iterator()
        if not example.reset_states(model)
    ]
    assert abs(np.exp(np.mean(alone)) - expected) > 0.01


def test_states_are_carried_over_windows_and_reset_between_texts(fitted):
    whens = [when for when, _ in fitted.seen]
    assert whens.count("epoch") == whens.count("test") == 2
    assert whens.count("begin") > 20
    before = None
    for when, now in fitted.seen:
        assert len(now) == 4
        if when == "begin":
            for state, expected in zip(now, before, strict=True):
                np.testing.assert_array_equal(state, expected)
        elif when == "end":
            assert all(np.abs(state).max() > 1e-3 for state in now)
        else:
            assert not any(state.any() for state in now)
        before = now


def test_evaluation_is_that_of_the_averaged_weights_that_a_run_ends_with(
    example, fitted
):
    model, streams = fitted.model, fitted.streams["valid"]
    averaged = model.get_weights()
    found = evaluate(example, model, streams, 10)
    assert found == pytest.approx(fitted.history["val_perplexity"][-1], rel=1e-5)
    # It is another one with the weights of the last step.
    model.set_weights(fitted.raw[-1])
    assert abs(evaluate(example, model, streams, 10) / found - 1) > 1e-3
    model.set_weights(averaged)


def test_output_and_input_embeddings_are_one(example, text):
    model = compiled(example, text)
    tables = [w for w in model.weights if "embeddings" in w.path]
    assert len(tables) == 1
    x = np.zeros((8, 1), "int32")
    before = np.asarray(model(x))
    table = tables[0].numpy()
    # The logit of a word that is not read grows with its row alone.
    table[5] *= 2
    tables[0].assign(table)
    example.reset_states(model)
    after = np.asarray(model(x))
    np.testing.assert_allclose(after[..., 5], 2 * before[..., 5], rtol=1e-5)
    np.testing.assert_array_equal(np.delete(after, 5, -1), np.delete(before, 5, -1))


def test_the_output_has_no_noise_of_its_own(example, text):
    args = text[0]
    for name in ("input_rate", "between_rate", "output_rate", "recurrent_rate"):
        setattr(args, name, 0.0)
    args.embedding_rate = 0.5
    model = compiled(example, text)
    embedding = model.get_layer("words")
    h = np.ones((8, 1, args.embedding), "float32")
    noisy = embedding(h, reverse=True, training=True)
    np.testing.assert_array_equal(noisy, embedding(h, reverse=True))
    # Whole rows: a word is 0 everywhere or nowhere, at q = 2.
    args.q = 2.0
    rows = compiled(example, text).get_layer("words")
    x = np.tile(np.arange(40), (8, 1))
    dropped = ~np.asarray(rows(x, training=True)).any(-1)
    assert (dropped == dropped[:1]).all()
    # Of 40 draws at a half; outside of this in 1 of 10^6 cases.
    assert 5 < dropped[0].sum() < 35

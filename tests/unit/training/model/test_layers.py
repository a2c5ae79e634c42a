import numpy as np
import torch
from training.model.layers import layer_tensors, padded_batches, read_layer
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

CONFIG = BertConfig(
    hidden_size=32,
    num_attention_heads=4,
    intermediate_size=64,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    layer_norm_eps=1e-12,
    attn_implementation="eager",
)


def reference() -> BertLayer:
    """A layer of transformers with seeded weights."""
    torch.manual_seed(3)
    return BertLayer(CONFIG).eval()


def test_a_layer_computes_what_transformers_does() -> None:
    theirs = reference()
    tensors = {f"x.{name}": value.numpy() for name, value in theirs.state_dict().items()}
    ours = read_layer(tensors, "x.", n_heads=4)
    states = torch.randn(2, 5, 32)
    here = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    added = torch.where(here, 0.0, torch.finfo(torch.float32).min)[:, None, None]

    with torch.no_grad():
        found, wanted = ours(states, here[:, None, None]), theirs(states, added)

    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    np.testing.assert_allclose(found[here].numpy(), wanted[here].numpy(), atol=1e-5)


def test_a_layer_is_written_as_it_was_read() -> None:
    tensors = {f"x.{name}": value.numpy() for name, value in reference().state_dict().items()}

    written = layer_tensors(read_layer(tensors, "x.", n_heads=4), "x.")

    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(written[name], tensor)


def test_batches_hold_each_sequence_once_and_stay_within_their_budget() -> None:
    lengths = [7, 1, 30, 4, 4, 12, 9]

    batches = list(padded_batches(lengths, 20))

    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    assert all(
        len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 20 for batch in batches
    )

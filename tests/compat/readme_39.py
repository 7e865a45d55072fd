"""The README's example for transformer-lens 3.9. ``tests/compat/run.py`` runs it; under 4.x there is no such class."""

import pytest
import torch


def test_the_readme_example_reads_a_hooked_transformer_of_transformer_lens_39():
    import transformer_lens

    from tasks.models import HookedTransformer

    cfg = transformer_lens.HookedTransformerConfig(
        n_layers=1, d_model=32, n_heads=2, d_head=16, d_mlp=64, n_ctx=3, d_vocab=12, d_vocab_out=11,
        act_fn="relu", normalization_type=None, seed=0, device="cpu",
    )  # fmt: skip
    with pytest.warns(DeprecationWarning, match="HookedTransformer is deprecated"):
        theirs = transformer_lens.HookedTransformer(cfg)
    model = HookedTransformer.from_transformer_lens(theirs)
    tokens = torch.tensor([[3, 4, 11], [7, 9, 11]])
    logits, cache = model.run_with_cache(tokens)
    assert (logits - theirs(tokens)).abs().max() < 1e-5
    assert cache["pattern", 0].shape == (2, 2, 3, 3)

    back = model.to_transformer_lens()
    assert type(back) is transformer_lens.HookedTransformer
    assert (back(tokens) - theirs(tokens)).abs().max() < 1e-5

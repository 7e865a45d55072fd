"""Every function of the two packages checks its shapes and types while the tests run."""

import jaxtyping

jaxtyping.install_import_hook(["tasks", "interp"], "typecheck.checked")

import torch  # noqa: E402

torch.set_num_threads(1)  # sums in one order: equal bits mean equal computations

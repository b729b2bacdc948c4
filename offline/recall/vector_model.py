"""A factorization machine over user side and item side whose score is one inner product.

A row of the model's input has these features x with embeddings v (Rendle, "Factorization Machines", 2010):

    user side   the user's id; attributes; a constant; the history: each earlier item with its weight (history_weights,
                divided by their sum to the power `pooling`). A history item's embedding is the item's own plus a residual.
    item side   the item's id, when the item has known rows; attributes

and y = sum_f w_f x_f + sum_{f<g} <v_f, v_g> x_f x_g over all of them. For one user the terms that touch no item feature are the
same for all items, so the order of items, and the probability of each under a softmax, depends only on

    <p, q> + b,   p = sum of x v over the user side,   q = sum of x v over the item side,
                  b = sum of w x over the item side + the pairs within the item side,

which is the inner product of the folded vectors (p, 1) and (q, b). User-side linear terms cancel and are not learned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from offline.recall.side_features import SideFeatures

INITIAL_SPREAD = 0.02
POPULARITY_START = 0.7  # share of the log popularity that biases start from


class SparseProduct(torch.autograd.Function):
    """A constant scipy CSR matrix times a dense weight, with the gradient for the weight."""

    @staticmethod
    def forward(context: Any, weight: torch.Tensor, matrix: sp.csr_matrix) -> torch.Tensor:
        context.matrix = matrix
        return torch.from_numpy(matrix @ weight.detach().numpy())

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.from_numpy(context.matrix.T @ gradient.numpy()), None


def product(matrix: sp.csr_matrix, weight: torch.Tensor) -> torch.Tensor:
    """[n, m] constant x [m, d] -> [n, d]."""
    result: torch.Tensor = SparseProduct.apply(weight, matrix)
    return result


class FactorizationMachine(nn.Module):
    """See the module's docstring.

    Args:
        users, items: side features; their rows are the user and item rows.
        item_positives: int64 [items], positives per item: where the biases start.
        known_items: bool [items]: items with known rows. The others have no id feature: their vector is their attributes'.
        dimension: size d of the embeddings.
        seed: of the start.
    """

    def __init__(
        self,
        users: SideFeatures,
        items: SideFeatures,
        item_positives: np.ndarray,
        known_items: np.ndarray,
        dimension: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.user_side, self.item_side = users.matrix, items.matrix
        self.item_side_squared = items.matrix.multiply(items.matrix).tocsr()
        user_count, item_count = users.matrix.shape[0], items.matrix.shape[0]
        generator = torch.Generator().manual_seed(seed)

        def start(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) * INITIAL_SPREAD)

        self.user_id = nn.Embedding(user_count, dimension, sparse=True)
        nn.init.zeros_(self.user_id.weight)
        self.user_constant = start(dimension)
        self.user_token = start(users.count, dimension)
        self.item_id = start(item_count, dimension)
        self.item_token = start(items.count, dimension)
        self.history_residual = nn.Parameter(torch.zeros(item_count, dimension))
        # an item without positives starts at 0, where an item without an id stays
        popularity = POPULARITY_START * np.log1p(2 * item_positives)
        self.item_bias = nn.Parameter(torch.tensor(popularity, dtype=torch.float32))
        self.token_bias = nn.Parameter(torch.zeros(items.count, 1))
        self.known = torch.tensor(known_items, dtype=torch.float32)

    def user_embeddings(self, users: np.ndarray, histories: sp.csr_matrix) -> torch.Tensor:
        """p of the docstring.

        Args:
            users: int64 [n], user rows. histories: CSR float32 [n, items], the weights x of the history features.

        Returns:
            float32 [n, d].
        """
        rows = torch.from_numpy(users)
        own = self.user_id(rows) + product(self.user_side[users], self.user_token) + self.user_constant
        return own + product(histories, self.history_embeddings())

    def history_embeddings(self) -> torch.Tensor:
        """Embeddings of the history features: float32 [items, d]."""
        return self.item_id * self.known[:, None] + self.history_residual

    def item_embeddings(self, items: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """q and b of the docstring.

        Args:
            items: int64 [n], item rows.

        Returns:
            float32 [n, d] and float32 [n].
        """
        rows = torch.from_numpy(items)
        known = self.known[rows]
        own = self.item_id[rows] * known[:, None]
        embedding = own + product(self.item_side[items], self.item_token)
        linear = self.item_bias[rows] * known + product(self.item_side[items], self.token_bias)[:, 0]
        token_norms = (self.item_token**2).sum(1, keepdim=True)
        squares = (own**2).sum(1) + product(self.item_side_squared[items], token_norms)[:, 0]
        return embedding, linear + ((embedding**2).sum(1) - squares) / 2

    @torch.no_grad()
    def forward(self, users: np.ndarray, histories: sp.csr_matrix, items: np.ndarray) -> torch.Tensor:
        """y of the docstring for pairs (users[k], items[k]), by the definition: every feature against every other.

        Slow; it is what the folded vectors are compared with.

        Returns:
            float32 [n].
        """
        scores = []
        history = self.history_embeddings()
        for place, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
            side, past, terms = self.user_side[user], histories[place], self.item_side[item]
            known = self.known[item : item + 1]
            x = [torch.ones(2), *(torch.from_numpy(part.data) for part in (side, past, terms)), known]
            v = [self.user_id.weight[user : user + 1], self.user_constant[None], self.user_token[side.indices]]
            v += [history[past.indices], self.item_token[terms.indices], self.item_id[item : item + 1]]
            weighted = torch.cat(v) * torch.cat(x)[:, None]
            pairs = weighted @ weighted.T
            linear = (
                self.item_bias[item] * known[0]
                + (self.token_bias[terms.indices, 0] * torch.from_numpy(terms.data)).sum()
            )
            scores.append(linear + (pairs.sum() - pairs.diagonal().sum()) / 2)
        return torch.stack(scores)

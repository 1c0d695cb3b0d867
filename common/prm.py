r"""Process reward models (PRMs): a score in [0, 1] for every step of a solution.

A PRM reads a tree of solutions as it grows. It has no state: what was read before is on the nodes.
A step is read once, behind the keys and values of the steps before it. What differs from model to
model is a family (common/families): how a problem and a step become tokens, and how a hidden state
becomes a score.

A search needs of a PRM two methods: read_problems(roots), and score(children, separator), which
sets child.scores. Scorer makes one of any function.
"""

import json
import math
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer, Cache, DynamicLayer

from common.families import FAMILIES, family_of
from common.families.weights import share_of_plus_minus
from common.loading import check_folder, load_model

# So much padding is worth another batch. On it a GPU computes about as long as it reads the
# weights of an 8B model.
BATCH_TOKENS = 128


def load_prm(folder, *, family=None, four_bit=False, device="cpu", dtype=None, allow_pickle=False):
    """The PRM in a local folder. family: a name in FAMILIES; None: told by its config.json.

    dtype: by default bfloat16 on a GPU, float32 on a CPU; with four_bit NF4 on either. The head
    that scores is always float32.
    Code that comes with a checkpoint is never run. Pickled weights (.bin) are read only with
    allow_pickle. Raises ValueError if it is no PRM of the family, or lacks weights, or is a model
    that writes.
    """
    tokenizer, family = read_family(folder, family)
    model = load_model(
        AutoModel,
        folder,
        four_bit=four_bit,
        device=device,
        dtype=dtype,
        allow_pickle=allow_pickle,
        heads=("lm_head.weight", *family.heads),
    )
    family.read_head(model, folder)
    prm = PRM(model, tokenizer, family)
    check_scores(prm, folder)
    return prm


def read_family(folder, name=None):
    """(tokenizer, family) of the PRM in a folder: what can be known before its weights are read.

    Raises ValueError if they do not belong together.
    """
    check_folder(folder)
    if Path(folder, "tokenizer.model").exists() and not Path(folder, "tokenizer.json").exists():
        if find_spec("sentencepiece") is None:
            raise ValueError("its tokenizer needs `pip install sentencepiece protobuf`")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if name is None:
        config = json.loads(Path(folder, "config.json").read_text())
        name = family_of(config, tokenizer)
    if name not in FAMILIES:
        raise ValueError(f"there is no family {name!r}, but {', '.join(FAMILIES)}")
    return tokenizer, FAMILIES[name](tokenizer)


@torch.inference_mode()
def check_scores(prm, folder):
    """Raises ValueError if it computes no scores, or if it scores by "+" and "-", and would rather
    write something else. Then it is no reward model, though its files may look like one's."""
    family = prm.family
    tokens = family.opening("1 + 1 = ?") + family.turn("## Step 1: Add\n$1+1=2$", 1)
    ids = torch.tensor([tokens], device=prm.model.device)
    hidden = prm.model(ids).last_hidden_state[:, -1].float()  # [1, h]
    if not family.score(hidden).isfinite().all():
        raise ValueError("it computes NaN or infinite scores: its weights are damaged")
    if not family.heads and share_of_plus_minus(prm, hidden, folder) < 0.5:
        raise ValueError(
            'it answers a step by other words than "+" and "-": it is no reward model, or one of '
            "another family"
        )


class PRM:
    """Scores the steps of Nodes (see beam.py). It sets node.scores and node.prm_kv: keys and values
    of the node's own tokens, [2, layers, kv_heads, tokens, head_dim].

    Shapes: R nodes in a batch, at most L new tokens each, T cached ones before them.
    """

    def __init__(self, model, tokenizer, family):
        config = model.config
        self.model = model
        self.tokenizer = tokenizer
        self.family = family
        self.context = getattr(config, "max_position_embeddings", None) or math.inf
        self.context = min(self.context, getattr(config, "sliding_window", None) or math.inf)

    def read_problems(self, roots):
        """Read what stands before the first step."""
        work = []
        for root in roots:
            work.append((root, self.family.opening(root.text.strip()), []))
        self._read_all(work)

    def score(self, children, separator):
        """Set child.scores: one in [0, 1] for each step in child.text.

        Steps are stripped, as in the models' training data. A blank one has no score. A step beyond
        the PRM's context has the score NaN. Raises ValueError if read_problems() was not called.
        """
        work = []
        for child in children:
            if child.path()[0].prm_kv is None:
                raise ValueError(
                    "the PRM has not read the problem: call read_problems(roots) first"
                )
            number = len(child.parent.all_scores())  # of the steps before
            tokens = []
            ends = []  # where in tokens scores are due
            for step in split_steps(child, separator):
                if step.strip():
                    number += 1
                    tokens += self.family.turn(step.strip(), number)
                    ends.append(len(tokens) - 1)
            if tokens:
                work.append((child, tokens, ends))
        self._read_all(work)

    def _read_all(self, work):
        """work: (node, tokens, where in them scores are due). Like lengths are read together."""
        work = sorted(work, key=lambda item: -len(item[1]))
        while work:
            size = alike([len(tokens) for _, tokens, _ in work])
            in_batches(self.model, self._read, work[:size])
            work = work[size:]

    @torch.inference_mode()
    def _read(self, batch):
        """Push R nodes through the model, a row each."""
        device = self.model.device
        nodes = [node for node, _, _ in batch]
        texts = [tokens for _, tokens, _ in batch]

        # 1. New tokens, padded on the right. Attention is causal: no token sees what is behind it.
        L = max(map(len, texts))
        ids = torch.tensor([tokens + [0] * (L - len(tokens)) for tokens in texts], device=device)

        # 2. All that is seen is laid end to end, each node once: first what is cached of the paths,
        # then the new tokens of each row. The places that a row sees are padded on the left, by
        # place 0, which the mask hides.
        paths = [[part for part in node.path() if part.prm_kv is not None] for node in nodes]
        parts = list(dict.fromkeys(part for path in paths for part in path))
        sizes = [part.prm_kv.shape[3] for part in parts] + [L] * len(nodes)
        ranges = torch.arange(sum(sizes)).split(sizes)
        places_of = dict(zip(parts, ranges))
        new = ranges[len(parts) :]
        rows = [torch.cat([*map(places_of.get, path), own]) for path, own in zip(paths, new)]
        lengths = [len(row) - L for row in rows]  # of the paths
        T = max(lengths)
        places = pad_sequence(rows, batch_first=True, padding_side="left").to(device)  # [R, T + L]
        known = [part.prm_kv for part in parts]
        layers = range(self.model.config.num_hidden_layers)
        cache = Cache(layers=[PathLayer(known, layer, places, T) for layer in layers])

        # 3. Forward.
        before = torch.tensor(lengths, device=device)[:, None]  # [R, 1]
        attention_mask = torch.arange(T + L, device=device) >= T - before  # [R, T + L]
        hidden = self.model(
            ids,
            attention_mask=attention_mask.long(),
            position_ids=before + torch.arange(L, device=device),  # [R, L]
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state  # [R, L, h]

        # 4. Scores where they are due: the host waits once for the GPU.
        due = [(row, end) for row, (_, _, ends) in enumerate(batch) for end in ends]
        where = torch.tensor(due, dtype=torch.long, device=device).view(-1, 2)
        scores = self.family.score(hidden[where[:, 0], where[:, 1]].float()).tolist()
        for node in nodes:
            node.scores = []
        for (row, end), score in zip(due, scores):
            inside = lengths[row] + end < self.context
            nodes[row].scores.append(score if inside else math.nan)

        # 5. Keys and values of what may be continued.
        for row, (node, tokens, _) in enumerate(batch):
            if not node.ended:
                keys = [layer.keys[row, :, : len(tokens)] for layer in cache.layers]
                values = [layer.values[row, :, : len(tokens)] for layer in cache.layers]
                node.prm_kv = torch.stack(keys + values).unflatten(0, (2, -1))
        return batch


class PathLayer(DynamicLayer):
    """A layer of a cache of paths. They are laid out side by side when the layer reads them, and
    not kept: no more than one layer is there at a time."""

    def __init__(self, known, layer, places, T):
        super().__init__()
        self.known = known  # prm_kv of the nodes on the paths
        self.layer = layer
        self.places = places  # [R, T + L]: what each row sees of them and of the new tokens
        self.T = T

    def get_seq_length(self):
        return self.T

    def update(self, keys, values, *args, **kwargs):
        """Keep the new keys and values, [R, kv_heads, L, head_dim]. Returns all that there are to
        be seen, [R, kv_heads, T + L, head_dim]."""
        self.keys = keys
        self.values = values
        new = torch.stack([keys, values]).transpose(1, 2).flatten(2, 3)  # [2, kv_heads, R L, ...]
        all_parts = torch.cat([*(kv[:, self.layer] for kv in self.known), new], dim=2)
        seen = all_parts[:, :, self.places]  # [2, kv_heads, R, T + L, head_dim]
        keys, values = seen.transpose(1, 2)
        return keys, values


class Scorer:
    """Any function in a PRM's place.

    function([(problem, solution so far), ...]) -> how good the last step of each is, in [0, 1].
    Texts come as the policy wrote them, with indentation and separators. NaN gives a solution up,
    and all that go on from it; where there is no telling yet, 0.5 does not.
    score() raises ValueError if they are not numbers in [0, 1], one for each.
    """

    def __init__(self, function):
        self.function = function

    def read_problems(self, roots):
        pass

    def score(self, children, separator):
        """Set child.scores: one for each step that is not blank, all asked for at once."""
        asked = []
        for child in children:
            root, *before = child.parent.path()
            solution = "".join(part.text for part in before)
            for step in split_steps(child, separator):
                solution += step
                if step.strip():
                    asked.append((child, root.text, solution))
        if not asked:
            return
        given = self.function([(problem, solution) for _, problem, solution in asked])
        try:
            scores = [float(score) for score in given]
        except (TypeError, ValueError):
            raise ValueError(
                f"the scoring function must return a list of numbers, not {given!r:.80}"
            ) from None
        if len(scores) != len(asked):
            raise ValueError(
                f"the scoring function returned {len(scores)} scores of {len(asked)} solutions"
            )
        for (child, _, _), score in zip(asked, scores):
            if not (-1e-6 < score < 1 + 1e-6 or math.isnan(score)):  # what rounding leaves will do
                raise ValueError(
                    f"the scoring function returned {score}: give numbers in [0, 1], or NaN"
                )
            child.scores.append(score)


def split_steps(node, separator):
    """The steps in a node's text, as they were written: "".join() of them is the text."""
    if callable(separator):
        return node.steps
    *steps, rest = node.text.split(separator)
    return [step + separator for step in steps] + [rest]


def alike(lengths):
    """How many rows, longest first, to read together: until the padding is worth another batch."""
    padding = accumulate(lengths[0] - length for length in lengths)
    return next((row for row, pads in enumerate(padding) if pads > BATCH_TOKENS), len(lengths))


def in_batches(model, work, items):
    """work(items), a list, for as many items at once as the GPU's memory holds.

    What did not fit is not tried again: model.rows_at_once remembers the number that may.
    """
    done = []
    while len(done) < len(items):
        at_once = getattr(model, "rows_at_once", len(items))
        batch = items[len(done) : len(done) + at_once]
        try:
            done += work(batch)
            continue
        except torch.cuda.OutOfMemoryError:
            if len(batch) == 1:
                raise
        # Not in the except: there, what the failed batch had made would still be in memory.
        model.rows_at_once = len(batch) // 2
    return done

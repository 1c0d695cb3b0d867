r"""Process reward models (PRMs): a score in [0, 1] for every step of a solution. Steps are separated by "\n\n".

One class, PRM, reads: incrementally, siblings packed side by side behind their parent's cached prefix. What differs from
model to model is a family: how a problem and a step become tokens, and what makes a score of a hidden state.
"""

import json
import re
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, BitsAndBytesConfig, DynamicCache
from transformers.utils import logging

from common import chat

PACK_TOKENS = 512  # siblings share a row up to this length: beyond it, masked-out attention between them costs too much
BATCH_TOKENS = 128  # so much padding is worth another batch: a GPU computes about as long on it as it reads and unpacks an 8B model's weights


# --- families: token ids of opening(problem) and turn(step, number), and score(hidden) at a turn's last token: [n, h] -> [n] ---


class RLHFlow:
    """RLHFlow/Llama3.1-8B-PRM-Deepseek-Data and -Mistral-Data (https://github.com/RLHFlow/RLHF-Reward-Modeling, math-rm).

        user: {question} {step 1}   assistant: +   user: {step 2}   assistant: +   user: {step 3} ...

    A step's score is P("+") against P("-") where the model's next answer is due. The answers fed back are all "+", right
    or not: that is how these models are used, and it lets one pass over a solution score all of its steps.
    """

    def __init__(self, tokenizer, model, folder):
        self.before, reply, next_turn = dialogue_pieces(tokenizer)
        self.encode, self.score = lambda text: chat.encode(tokenizer, text), plus_minus_score(tokenizer, model, folder)
        self.reply, self.next_turn = self.encode(reply), self.encode(next_turn)
        whole = self.encode(self.before + "1 + 1 = ? ## Step 1: Add" + reply + next_turn + "It is 2." + reply)
        if whole != self.opening("1 + 1 = ?") + self.turn("## Step 1: Add", 1) + self.turn("It is 2.", 2):
            raise ValueError('its tokenizer does not write "+" and "-" as single tokens between the turns of its chat template')

    def opening(self, problem):
        return self.encode(self.before + problem)

    def turn(self, step, number):
        return (self.encode(" " + step) if number == 1 else self.next_turn + self.encode(step)) + self.reply


class MathShepherd:
    """peiyi9979/math-shepherd-mistral-7b-prm (https://arxiv.org/abs/2312.08935).

        {question} Step 1: {text} ки
        Step 2: {text} ки

    A step's score is P("+") against P("-") at its "ки". The model knows steps of one line, numbered like this. So the
    heading of our policies' steps, "## Step 3: ", becomes "Step 3: ", which others get too, and line breaks become spaces.
    Published as pickles (--allow-pickle), with a tokenizer that needs `pip install sentencepiece protobuf`.
    """

    def __init__(self, tokenizer, model, folder):
        single_token(tokenizer, "ки")
        self.tokenizer, self.score = tokenizer, plus_minus_score(tokenizer, model, folder)
        whole = self.opening("1 + 1 = ? Step 1: Add. ки\nStep 2: It is 2. ки")
        if whole != self.opening("1 + 1 = ?") + self.turn("## Step 1: Add.", 1) + self.turn("It is 2.", 2):
            raise ValueError('its tokenizer does not keep "ки" and the line break behind it apart from the steps')

    def opening(self, problem):
        return self.tokenizer(problem).input_ids

    def turn(self, step, number):
        text = re.sub(r"\s*\n\s*", " ", re.sub(r"^#*\s*Step \d+:\s*", "", step))
        # Sentencepiece puts a space before whatever a string begins with, be it a line break: encoded behind a letter,
        # which is then taken off again, the text gets the tokens that it has inside of a solution.
        letter, space = chat.encode(self.tokenizer, "a"), " " if number == 1 else "\n"
        return chat.encode(self.tokenizer, f"a{space}Step {number}: {text} ки")[len(letter):]


class Skywork:
    r"""Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B and -7B (https://github.com/SkyworkAI/skywork-o1-prm-inference).

        {bos}{question}\n{step 1}\n{step 2}\n ...

    A step's score is the sigmoid of a value head at the "\n" behind it, always a token of its own. To these models every
    line is a step: the lines of ours are encoded like that too, but only the score of the last is read. Published as
    pickles (--allow-pickle).
    """

    def __init__(self, tokenizer, model, folder):
        self.bos = model.config.bos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self.tokenizer, self.newline = tokenizer, single_token(tokenizer, "\n")
        self.head = tensors(folder, model.device, "v_head.summary.weight", "v_head.summary.bias")

    def opening(self, problem):
        return [self.bos] + chat.encode(self.tokenizer, problem + "\n")

    def turn(self, step, number):
        return [token for line in step.split("\n") for token in (*chat.encode(self.tokenizer, line), self.newline)]

    def score(self, hidden):
        weight, bias = self.head  # [1, h], [1]
        return torch.sigmoid(hidden @ weight[0] + bias)


class QwenMath:
    """Qwen/Qwen2.5-Math-PRM-7B, Qwen/Qwen2.5-Math-7B-PRM800K (https://arxiv.org/abs/2501.07301).

        system: {PROMPT}   user: {question}   assistant: {step 1}<extra_0>{step 2}<extra_0> ...

    A step's score is the probability of the second of two classes at the <extra_0> behind it.
    """

    PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."

    def __init__(self, tokenizer, model, folder):
        self.tokenizer, self.tag = tokenizer, single_token(tokenizer, "<extra_0>")
        self.head = tensors(folder, model.device, "score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias")

    def opening(self, problem):
        return chat.encode_prompt(self.tokenizer, problem, system=self.PROMPT)

    def turn(self, step, number):
        return chat.encode(self.tokenizer, step) + [self.tag]

    def score(self, hidden):
        w1, b1, w2, b2 = self.head  # [h, h], [h], [2, h], [2]
        return (torch.relu(hidden @ w1.T + b1) @ w2.T + b2).softmax(-1)[:, 1]


FAMILIES = {"rlhflow": RLHFlow, "math-shepherd": MathShepherd, "skywork": Skywork, "qwen-math": QwenMath}


def dialogue_pieces(tokenizer) -> tuple[str, str, str]:
    """The fixed text of an RLHFlow dialogue, read off the chat template: before the question (opening), from a step's end to
    where "+" or "-" is due (reply), and from the "+" to the next step (next_turn)."""
    question, step = "<<question>>", "<<step>>"
    turns = [("user", question), ("assistant", "+"), ("user", step), ("assistant", "+")]
    text = chat.render(tokenizer, [{"role": role, "content": content} for role, content in turns])
    opening, rest = text.split(question)
    middle, _ = rest.split(step)
    plus = middle.rindex("+")
    return opening, middle[:plus], middle[plus:]


def single_token(tokenizer, text: str) -> int:
    """The one token that a tag is. Raises ValueError if it is several: scores would be read in the wrong place."""
    tokens = chat.encode(tokenizer, text)
    if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
        raise ValueError(f"its tokenizer does not write {text!r} as a single token")
    return tokens[0]


def plus_minus_score(tokenizer, model, folder):
    """P(+) / (P(+) + P(-)) is the sigmoid of a difference of two logits: of the head's 128k rows two will do."""
    rows = [single_token(tokenizer, "+"), single_token(tokenizer, "-")]
    if model.config.tie_word_embeddings:
        plus, minus = model.get_input_embeddings().weight.detach()[rows].float()  # each [h]
    else:
        plus, minus = tensors(folder, model.device, "lm_head.weight", rows=rows)[0]
    return lambda hidden: torch.sigmoid(hidden @ (plus - minus))


def tensors(folder: str, device, *names: str, rows=slice(None)) -> list[torch.Tensor]:
    """Weights, or some rows of them, that a checkpoint has beside the model proper: in float32, never quantized."""
    found = {}
    for shard in list(Path(folder).glob("*.safetensors")) or Path(folder).glob("pytorch_model*.bin"):
        safe = shard.suffix == ".safetensors"
        weights = load_file(shard) if safe else torch.load(shard, map_location="cpu", mmap=True, weights_only=True)
        found |= {name: weights[name][rows].to(device, torch.float32) for name in names if name in weights}
    if missing := set(names) - set(found):
        raise ValueError(f"it has no weights named {min(missing)}, with which PRMs of its family score")
    return [found[name] for name in names]


def family_of(folder: str, tokenizer) -> str:
    """The name in FAMILIES, by the architecture in config.json. Raises ValueError if that is not one of theirs.

    RLHFlow's and Math-Shepherd's (a Mistral saved as a Llama) share theirs, but only the former are chat models.
    """
    architectures = json.loads(Path(folder, "config.json").read_text()).get("architectures") or ["no architecture"]
    known = {
        "LlamaForCausalLM": "rlhflow" if tokenizer.chat_template else "math-shepherd", "MistralForCausalLM": "math-shepherd",
        "Qwen2ForPrmModel": "skywork", "Qwen2ForProcessRewardModel": "qwen-math",
    }
    if architectures[0] not in known:
        raise ValueError(f"{architectures[0]} is no PRM known here: if it scores like one, add --prm-family ({', '.join(FAMILIES)})")
    return known[architectures[0]]


def load_prm(folder: str, *, family: str | None = None, four_bit: bool, device: torch.device, allow_pickle: bool = False):
    """The PRM in a local folder. family: a name in FAMILIES; None goes by family_of().

    4-bit is NF4 with double quantization, but for what makes the scores. Code that comes with a checkpoint is never run,
    its weights are read from pickles (.bin) only with allow_pickle. Raises ValueError if it is no PRM of (this) family.
    """
    if Path(folder, "tokenizer.model").exists() and not Path(folder, "tokenizer.json").exists() and find_spec("sentencepiece") is None:
        raise ValueError("its tokenizer is a sentencepiece file: `pip install sentencepiece protobuf` to read it")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    kind = FAMILIES[family or family_of(folder, tokenizer)]
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn that the heads are left out, of which tensors() reads what is needed
    model, info = AutoModel.from_pretrained(
        folder, dtype=torch.float32 if device.type == "cpu" and not four_bit else torch.bfloat16,
        quantization_config=nf4 if four_bit else None, device_map={"": device}, attn_implementation="sdpa",
        use_safetensors=None if allow_pickle else True, trust_remote_code=False, output_loading_info=True,
    )
    logging.set_verbosity(verbosity)
    if info["missing_keys"]:  # these would be random numbers
        raise ValueError(f"it lacks {len(info['missing_keys'])} weights of a {type(model).__name__}, such as {min(info['missing_keys'])}")
    return PRM(model.eval(), tokenizer, kind(tokenizer, model, folder))


# --- incremental scoring ----------------------------------------------------------------------------------------------


class PRM:
    """Scores steps incrementally: what was scored before stays in a KV cache, and only new steps go through the model.

    After start() child i is problem i; after score() child i is the i-th one of that call. The next score() continues
    any of them. The cache is a pool with a slot for each token read, and a child is a row of slot numbers, so that what
    children have in common is stored once. New siblings lie side by side, in as many rows as they need, each behind a copy
    of their parent's slots; a mask lets a child see that and itself, and position ids let it begin where the parent ended:

        the parent's slots                        new
        . . question step step step               child 4 | child 5        | child 7 | unused
    """

    def __init__(self, model, tokenizer, family):
        if model.config._attn_implementation != "sdpa":  # others read a mask of truth values as numbers, without a word
            raise ValueError('load the PRM with attn_implementation="sdpa"')
        self.model, self.tokenizer, self.family, config = model, tokenizer, family, model.config
        self.context = min(config.max_position_embeddings, getattr(config, "sliding_window", None) or config.max_position_embeddings)
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    @torch.inference_mode()
    def start(self, problems: list[str]):
        """Forget everything and read new problems, each of which is a child then."""
        config, device = self.model.config, self.model.device
        nothing = torch.zeros(0, config.num_key_value_heads, self.head_dim, dtype=self.model.dtype, device=device)
        self.pool = [(nothing, nothing)] * config.num_hidden_layers  # of each layer keys and values [slots, kv heads, head_dim]
        self.slots = torch.zeros(len(problems), 0, dtype=torch.long, device=device)  # [children, T]: those of each, in order; else -1
        self._read([*range(len(problems))], [self.family.opening(problem.strip()) for problem in problems], [[] for _ in problems])
        self.turns = [0] * len(problems)  # [children]: how many steps each has
        self.history = []  # (parents, texts, scores) of each score() since: all of a search, for common/trace.py

    @torch.inference_mode()
    def score(self, parents: list[int], texts: list[str], keep: bool = True) -> list[list[float]]:
        r"""Read children: child i continues parents[i] by texts[i]. Returns a score in [0, 1] for each step in the text.

        Steps are separated by "\n\n" and stripped, as in the models' training data; what is empty then is no step and
        has no score. A step beyond the PRM's context has the score NaN. With keep=False nothing can go on from these
        children, and their keys and values, most of the memory for many whole solutions, are dropped as they are read.
        """
        segments, ends, turns = [], [], []  # of each child: its tokens, where in them scores are due, its steps in all
        for parent, text in zip(parents, texts):
            steps = enumerate(split_steps(text), self.turns[parent] + 1)
            tokens = [self.family.turn(step, number) for number, step in steps]
            segments.append(sum(tokens, []))
            ends.append([end - 1 for end in accumulate(map(len, tokens))])
            turns.append(self.turns[parent] + len(tokens))
        scores, self.turns = self._read(parents, segments, ends, keep), turns if keep else []
        self.history = [*self.history, (parents, texts, scores)]  # a new list: peek() puts the old one back
        return scores

    def peek(self, texts: list[str]) -> list[list[float]]:
        """Scores of texts[i] behind child i, for every child of the last call, which the next call knows nothing of."""
        before = self.turns, self.history
        scores = self.score(list(range(len(texts))), texts, keep=False)
        self.turns, self.history = before
        return scores

    def _read(self, parents: list[int], segments: list[list[int]], ends: list[list[int]], keep=True) -> list[list[float]]:
        """Push children through the model, segments[i] behind child parents[i]. Returns the scores at the places ends[i] in it."""
        packs, device = pack(parents, segments), self.model.device
        ids, position, child, places = lay_out(packs, segments)
        due = torch.zeros_like(child, dtype=torch.bool)
        for (row, start), at in zip(places, ends):
            due[row, [start + end for end in at]] = True
        prefix = self.slots[torch.tensor([parent for parent, _ in packs], device=device)]  # [R, T]
        if keep:  # otherwise nothing will go on from here, and the pool stays as it is
            prefix = self._drop_all_but(prefix)
        position, child = position.to(device) + (prefix >= 0).sum(1, keepdim=True), child.to(device)
        scores, batches = self._forward_in_batches(prefix, ids.to(device), position, child, due.to(device), keep)
        if keep:  # a child has its parent's slots and, of the new ones in its row, its own
            new = number_slots(child >= 0, first=len(self.pool[0][0]))
            for layer, kv in enumerate(self.pool):
                self.pool[layer] = tuple(map(torch.cat, zip(kv, *(batch.pop(0) for batch in batches))))
            row = torch.tensor([row for row, _ in places], device=device)
            own = child[row] == torch.arange(len(row), device=device)[:, None]
            self.slots = squeeze(torch.cat([prefix[row], torch.where(own, new[row], -1)], 1))
        scores = scores.masked_fill(position >= self.context, torch.nan).tolist()
        return [[scores[row][start + end] for end in at] for (row, start), at in zip(places, ends)]

    def _drop_all_but(self, slots):
        """Keep only these slots of the pool; returns them as they are numbered then."""
        used, renumbered = slots[slots >= 0].unique(return_inverse=True)
        for layer, kv in enumerate(self.pool):  # one by one: the old goes as the new comes
            self.pool[layer] = tuple(x[used] for x in kv)
        return squeeze(slots.masked_scatter(slots >= 0, renumbered))

    def _forward_in_batches(self, prefix, ids, position, child, due, keep):
        """Rows of like length together, as many as memory allows, half of that if it was too many. All [R, L] but prefix [R, T].

        Returns scores where due, else 0; and with `keep` each batch's keys and values, of each layer [slots, kv heads, head_dim].
        """
        (R, L), done, fit, batches = ids.shape, 0, len(ids), []
        scores, lengths = torch.zeros(R, L, device=ids.device), (child >= 0).sum(1).clamp(min=1).tolist()
        while done < R:
            size = min(fit, self._rows_at_once(alike(lengths[done:]), prefix.shape[1], lengths[done]))
            rows, new = slice(done, done + size), slice(lengths[done])
            try:
                scores[rows, new], kvs = self._forward(prefix[rows], *(x[rows, new] for x in (ids, position, child, due)), keep)
                batches, done = batches + [kvs], done + size
            except torch.cuda.OutOfMemoryError:
                if size == 1:
                    raise
                fit = (size + 1) // 2
        return scores, batches

    def _forward(self, prefix, ids, position, child, due, keep):
        """Scores of one batch, and its keys and values with `keep`. The slots before it are copied for these rows only."""
        cache, (rows, T) = DynamicCache(), prefix.shape
        for layer, kv in enumerate(self.pool):
            before = (x.index_select(0, prefix.clamp(min=0).flatten()).unflatten(0, (rows, T)).transpose(1, 2) for x in kv)
            cache.update(*before, layer)
        # A token sees its parent's slots and, behind them, what its own child wrote before it.
        own = (child[:, :, None] == child[:, None, :]).tril()
        seen = torch.cat([(prefix >= 0)[:, None].expand(-1, ids.shape[1], -1), own], 2)  # [rows, L, T + L]
        output = self.model(ids, attention_mask=seen[:, None], position_ids=position, past_key_values=cache, use_cache=True)
        row, column = (child >= 0).nonzero(as_tuple=True)
        kvs = [(layer.keys[row, :, T + column], layer.values[row, :, T + column]) for layer in cache.layers] if keep else []
        return torch.zeros(ids.shape, device=ids.device).masked_scatter(due, self.family.score(output.last_hidden_state[due].float())), kvs

    def _rows_at_once(self, R: int, T: int, L: int) -> int:
        """How many of R rows, L tokens behind T slots, to push through the model together: on a CPU all, on a GPU what fits in
        80% of what is free.

        A row in flight has prefix and new slots in the cache of every layer. The layer at work has keys and values once
        more, repeated for all heads, the mask as numbers, and about 8 hidden and 3 intermediate vectors for each token.
        """
        config, device = self.model.config, self.model.device
        if device.type != "cuda":
            return R
        cached = 2 * config.num_hidden_layers * config.num_key_value_heads * self.head_dim  # numbers for each slot
        at_work = 2 * config.num_attention_heads * self.head_dim + L
        row = (T + L) * (cached + at_work) + L * (8 * config.hidden_size + 3 * config.intermediate_size)
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return max(1, min(R, int(0.8 * free / self.model.dtype.itemsize / row)))


class Scorer:
    """Any function in a PRM's place: function(problem, steps) -> how good the last of these steps is, in [0, 1]."""

    def __init__(self, function):
        self.function = function

    def start(self, problems):
        self.children, self.history = [(problem, []) for problem in problems], []

    def score(self, parents, texts, keep=True):
        asked = [(self.children[parent], split_steps(text)) for parent, text in zip(parents, texts)]
        self.children = [(problem, steps + new) for (problem, steps), new in asked]
        scores = [[self.function(problem, steps + new[:i + 1]) for i in range(len(new))] for (problem, steps), new in asked]
        self.history = [*self.history, (parents, texts, scores)]
        return scores

    def peek(self, texts):
        before = self.children, self.history
        scores = self.score(range(len(texts)), texts)
        self.children, self.history = before
        return scores


def split_steps(text: str) -> list[str]:
    return [step.strip() for step in text.split("\n\n") if step.strip()]


def pack(parents: list[int], segments: list[list[int]]) -> list[tuple[int, list[int]]]:
    """Distribute children over rows, siblings together: [(parent, children)], the longest row first.

    A row takes about as many tokens as a parent's children have on average, so that a parent with many children gets
    several rows and one with a single child does not make a row of padding.
    """
    total = sum(map(len, segments))
    limit = max(max(map(len, segments)), min(PACK_TOKENS, total / len(set(parents)) * 1.2))
    rows = []
    for parent in dict.fromkeys(parents):
        used = limit + 1
        for child in (c for c, p in enumerate(parents) if p == parent):
            if used + len(segments[child]) > limit:
                rows.append((parent, []))
                used = 0
            rows[-1][1].append(child)
            used += len(segments[child])
    return sorted(rows, key=lambda row: -sum(len(segments[c]) for c in row[1]))


def alike(lengths: list[int]) -> int:
    """How many rows, longest first, to push through the model together: until the padding behind them is worth another batch."""
    padding = accumulate(lengths[0] - length for length in lengths)
    return next((row for row, pads in enumerate(padding) if pads > BATCH_TOKENS), len(lengths))


def lay_out(packs, segments: list[list[int]]):
    """Token ids, positions behind the parent and owners (-1 none), each [R, L], and each child's (row, start)."""
    L = max(1, *(sum(len(segments[c]) for c in children) for _, children in packs))  # a pad, if none has a step
    ids, position = torch.zeros(2, len(packs), L, dtype=torch.long)
    child, places = torch.full_like(ids, -1), [(0, 0)] * len(segments)
    for row, (_, children) in enumerate(packs):
        end = 0
        for c in children:
            start, end = end, end + len(segments[c])
            ids[row, start:end] = torch.tensor(segments[c], dtype=torch.long)
            position[row, start:end] = torch.arange(end - start)
            child[row, start:end] = c
            places[c] = row, start
    return ids, position, child, places


def number_slots(real, first):
    """Numbers for what is True in real [R, L], row by row from `first` on; -1 elsewhere."""
    return torch.where(real, real.flatten().cumsum(0).view_as(real) - 1 + first, -1)


def squeeze(slots):
    """Close the holes (-1) in each row: a stable sort moves them to the front and keeps the rest in order."""
    real = slots >= 0
    return slots.gather(1, real.long().argsort(dim=1, stable=True))[:, slots.shape[1] - int(real.sum(1).max()):]

"""Process reward models: a score in [0, 1] for every step of a solution.

One class so far, for models that judge a step by the "+" or "-" they would answer to it in a chat, such as
RLHFlow/Llama3.1-8B-PRM-Deepseek-Data (https://github.com/RLHFlow/RLHF-Reward-Modeling, math-rm):

    user: {question} {step 1}   assistant: +   user: {step 2}   assistant: +   user: {step 3} ...

A step's score is P("+") against P("-") at the place where the model's next answer is due. The answers fed back are all
"+", right or not: that is how these models are used, and it lets one pass over a solution score all of its steps.
"""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, DynamicCache

from common import chat

PACK_TOKENS = 512  # siblings share a row up to this length: beyond it, masked-out attention between them costs too much


def dialogue_pieces(tokenizer) -> tuple[str, str, str]:
    """The fixed text of a scoring dialogue, read off the chat template.

    opening: before the question; reply: from a step's end to where "+" or "-" is due; next_turn: from the "+" to the next step.
    """
    question, step = "<<question>>", "<<step>>"
    turns = [("user", question), ("assistant", "+"), ("user", step), ("assistant", "+")]
    text = chat.render(tokenizer, [{"role": role, "content": content} for role, content in turns])
    opening, rest = text.split(question)
    middle, _ = rest.split(step)
    plus = middle.rindex("+")
    return opening, middle[:plus], middle[plus:]


class PlusMinusPRM:
    """Scores steps incrementally: what was scored before stays in a KV cache, and only new steps go through the model.

    After each call of score() the cache holds, for every child i of that call, the dialogue up to its last step. The
    next call continues any of them: `parents` are indices into the children of the call before (0 after start()).
    Siblings lie side by side in one cache row behind their parent's prefix, which is stored once; a mask keeps them
    from seeing each other, and position ids let each begin where the parent ended.
    """

    def __init__(self, model, tokenizer):
        """Raises ValueError if the tokenizer writes "+" or "-" as several tokens, or joins tokens over a turn's edge."""
        if model.config._attn_implementation != "sdpa":  # others read a mask of truth values as numbers, without a word
            raise ValueError('load the PRM with attn_implementation="sdpa"')
        self.model, self.tokenizer = model, tokenizer
        opening, reply, next_turn = dialogue_pieces(tokenizer)
        self.opening, self.reply, self.next_turn = opening, self._encode(reply), self._encode(next_turn)
        whole = self._encode(opening + "1 + 1 = ? ## Step 1: Add" + reply + next_turn + "It is 2." + reply)
        parts = self._encode(opening + "1 + 1 = ?") + self._turn("## Step 1: Add", first=True) + self._turn("It is 2.", first=False)
        plus, minus = self._encode("+"), self._encode("-")
        if whole != parts or len(plus) != 1 or len(minus) != 1:
            raise ValueError('the tokenizer does not write "+" and "-" as single tokens between the turns of its chat template')
        # P(+) / (P(+) + P(-)) is the sigmoid of a difference of two logits, so two rows of the head will do:
        # the other 128k rows of Llama's, and their logits, are never needed.
        head = model.get_output_embeddings().weight
        self.direction = (head[plus[0]] - head[minus[0]]).detach().float()  # [hidden]

    @classmethod
    def load(cls, folder: str, *, four_bit: bool, device: torch.device):
        """Load from a local folder; 4-bit is NF4 with double quantization, the head stays as it is."""
        dtype = torch.float32 if device.type == "cpu" and not four_bit else torch.bfloat16
        quantization = None
        if four_bit:
            quantization = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
            )
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, quantization_config=quantization, device_map={"": device}, attn_implementation="sdpa"
        )
        return cls(model.eval(), AutoTokenizer.from_pretrained(folder))

    @torch.inference_mode()
    def start(self, problem: str):
        """Forget everything and read a new problem."""
        prefix = torch.tensor([self._encode(self.opening + problem.strip())], device=self.model.device)
        self.cache = DynamicCache()
        self.model.base_model(prefix, past_key_values=self.cache, use_cache=True)
        self.mask = torch.ones_like(prefix)  # [rows, T]: 1 on the prefix that all siblings of a row share
        self.child = prefix[:, :0]  # [rows, L]: the child that each slot behind the prefix belongs to, -1 none
        self.row = torch.tensor([0], device=prefix.device)  # [children]: where each stands
        self.turns = [0]  # [children]: how many steps each has

    @torch.inference_mode()
    def score(self, parents: list[int], texts: list[str]) -> list[list[float]]:
        r"""Read children: child i continues parents[i] by texts[i]. Returns a score in [0, 1] for each step in the text.

        Steps are separated by "\n\n" and stripped, as in the models' training data; what is empty then is no step and
        has no score. A step beyond the PRM's context has the score NaN.
        """
        segments, ends, turns = [], [], []  # of each child: its tokens, where in them scores are due, its steps in all
        for parent, text in zip(parents, texts):
            tokens, at = [], []
            for number, step in enumerate(split_steps(text), self.turns[parent]):
                tokens += self._turn(step, first=number == 0)
                at.append(len(tokens) - 1)
            segments.append(tokens)
            ends.append(at)
            turns.append(self.turns[parent] + len(at))
        packs = pack(parents, segments)  # [(parent, its children in this row)]
        self._keep([parent for parent, _ in packs])

        # ids, position, child: [rows, L]
        L = max(sum(len(segments[c]) for c in children) for _, children in packs)
        ids, position = torch.zeros(2, len(packs), L, dtype=torch.long)
        child = torch.full_like(ids, -1)
        row, start = [0] * len(parents), [0] * len(parents)
        for r, (_, children) in enumerate(packs):
            end = 0
            for c in children:
                row[c], start[c], end = r, end, end + len(segments[c])
                ids[r, start[c]:end] = torch.tensor(segments[c], dtype=torch.long)
                position[r, start[c]:end] = torch.arange(len(segments[c]))
                child[r, start[c]:end] = c
        ids, position, child = (t.to(self.model.device) for t in (ids, position, child))
        if L > 0:
            # A token sees its parent's whole prefix and, behind it, what its own child wrote before it.
            own = (child[:, :, None] == child[:, None, :]) & torch.ones(L, L, dtype=torch.bool, device=child.device).tril()
            seen = torch.cat([self.mask.bool()[:, None, :].expand(-1, L, -1), own], 2)  # [rows, L, T + L]
            position += self.mask.sum(1, keepdim=True)
            hidden = self.model.base_model(
                ids, attention_mask=seen[:, None], position_ids=position, past_key_values=self.cache, use_cache=True
            ).last_hidden_state
            due = torch.tensor([(row[c], start[c] + end) for c, at in enumerate(ends) for end in at], device=child.device).T
            scores = torch.sigmoid(hidden[due[0], due[1]].float() @ self.direction)
            scores[position[due[0], due[1]] >= self.model.config.max_position_embeddings] = torch.nan
        scores = iter(scores.tolist() if L > 0 else [])
        self.child, self.row, self.turns = child, torch.tensor(row, device=child.device), turns
        return [[next(scores) for _ in at] for at in ends]

    def peek(self, texts: list[str]) -> list[list[float]]:
        """Scores of texts[i] behind child i, for every child of the last call, which the next call knows nothing of."""
        before = vars(self).copy()
        layers = [(layer.keys, layer.values) for layer in self.cache.layers]
        scores = self.score(list(range(len(texts))), texts)
        vars(self).update(before)
        for layer, (keys, values) in zip(self.cache.layers, layers):
            layer.keys, layer.values = keys, values
        return scores

    def _keep(self, parents: list[int]):
        """Make row i of the cache the dialogue of parents[i]: its prefix and its own slots, without its siblings'."""
        parents = torch.tensor(parents, device=self.row.device)
        rows = self.row[parents]
        mask = torch.cat([self.mask[rows], (self.child[rows] == parents[:, None]).long()], 1)
        slots = mask.argsort(dim=1, stable=True)[:, -int(mask.sum(1).max()):]  # real slots to the right, in order
        for layer in self.cache.layers:
            layer.keys, layer.values = (
                kv.transpose(1, 2)[rows[:, None], slots].transpose(1, 2) for kv in (layer.keys, layer.values)
            )
        self.mask = mask.gather(1, slots)

    def _encode(self, text: str) -> list[int]:
        return chat.encode(self.tokenizer, text)

    def _turn(self, step: str, first: bool) -> list[int]:
        """Tokens from behind the last place where an answer was due to the next such place."""
        return (self._encode(" " + step) if first else self.next_turn + self._encode(step)) + self.reply


def split_steps(text: str) -> list[str]:
    return [step.strip() for step in text.split("\n\n") if step.strip()]


def pack(parents: list[int], segments: list[list[int]]) -> list[tuple[int, list[int]]]:
    """Distribute children over rows, siblings together: [(parent, children)].

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
    return rows

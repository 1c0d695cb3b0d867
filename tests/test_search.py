"""The search loops on trees small enough to work out by hand, and at their edges.

The policy here is a real Llama with hand-set weights which only knows the last token (a bigram table): after "\\n\\n" it
writes a, b, c or d, as the random numbers say; a, b and ce end a step, d ends the text. Its solutions are written as the
letters of their steps: "abd" is three steps. The PRM is a table from such paths to scores.
"""

import math
from types import SimpleNamespace
import random

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

import beam
import best_of_n
import dvts
import majority
import rebase
from test_cache import plain_step
from test_prm import full_score

SETTINGS = dict(max_steps=40, temperature=1.0, top_p=1.0, max_new_tokens=100)
SEARCH = dict(SETTINGS, reduce=lambda scores: scores[-1], on_step=lambda step, rows: None)


def bigram_policy(tokenizer, table: dict[str, list[str]]) -> LlamaForCausalLM:
    """After token x each of table[x] is equally likely, and nothing else is. Attention and MLP add nothing."""
    size = len(tokenizer)
    config = LlamaConfig(vocab_size=size, hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                         max_position_embeddings=2048, tie_word_embeddings=False)
    policy = LlamaForCausalLM(config).eval()
    logits = torch.full((size, size), -200.0)
    for token, following in table.items():
        logits[tokenizer.convert_tokens_to_ids(token), tokenizer.convert_tokens_to_ids(following)] = 0.0
    with torch.no_grad():
        for weights in policy.model.layers.parameters():
            weights.zero_()
        policy.model.embed_tokens.weight.copy_(torch.eye(size))
        policy.lm_head.weight.copy_(logits.T / math.sqrt(size))  # the norm makes a one-hot vector sqrt(size) long
    policy.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id], pad_token_id=size - 1)
    return policy


LETTERS = {"ĊĊ": ["a", "b", "c", "d"], "a": ["ĊĊ"], "b": ["ĊĊ"], "c": ["e"], "e": ["ĊĊ"], "d": ["<|eot_id|>"]}


class TablePRM:
    def __init__(self, scores):
        self.scores, self.parents, self.children = scores, [], []

    def start(self, problems):
        self.paths = [""] * len(problems)

    def score(self, parents, texts):
        self.parents.append(parents)
        self.paths = [self.paths[parent] + text.strip()[:1] for parent, text in zip(parents, texts)]
        self.children.append(self.paths)
        return [[self.scores[path]] for path in self.paths]

    def peek(self, texts):
        return [[self.scores[path + "".join(step[:1] for step in text.split("\n\n"))]] if text.strip() else []
                for path, text in zip(self.paths, texts)]


@pytest.fixture
def search(pair, monkeypatch):
    """search(function, draws, scores, ...) -> (paths of what it returns, their values, tokens sampled, the PRM)."""
    tokenizer = pair[1]
    policy = bigram_policy(tokenizer, LETTERS)

    def run(function, draws, scores, table=LETTERS, **settings):
        draws, letters, order = iter(draws), [], sorted("abcd", key=tokenizer.convert_tokens_to_ids)

        def on_step(step, rows):
            letters.extend(next(draws))
            assert len(letters) == rows

        def rand(length, generator):
            return torch.tensor([(order.index(letters.pop(0)) + 0.5) / 4] + [0.5] * (length - 1))

        prm = TablePRM(scores)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", rand)
            (nodes,), (sampled,) = function(policy, tokenizer, prm, ["?"], [None], **{**SEARCH, "on_step": on_step, **settings})
        assert next(draws, None) is None and not letters, "fewer steps than expected"
        assert all(node.finished != node.cut for node in nodes)
        paths = ["".join(step[:1] for step in tokenizer.decode(node.tokens).split("\n\n")) for node in nodes]
        return paths, [node.value for node in nodes], sampled, prm

    return run


# --- hand-computed trees ----------------------------------------------------------------------------------------------


def test_beam_search_by_hand(search):
    paths, values, sampled, prm = search(
        beam.beam_search, ["abcd", "bdaa", "dddc", "db", "db"],
        {"a": 0.9, "b": 0.2, "c": 0.7, "d": 0.8,  # d has ended; a and c are kept
         "ab": 0.3, "ad": 0.95, "ca": 0.6,  # ad has ended; ca came twice, and both are ahead of ab
         "cad": 0.5, "cac": 0.1,  # cad ended three times, but is one solution: three in all, and cac goes on alone
         "cacd": 0.2, "cacb": 0.99,  # with cacd four have ended, but cacb is better than any of them
         "cacbd": 0.9, "cacbb": 0.1},  # now one of those that have ended, ad, is better than cacbb: it is over
        n=4, beam_width=2, lookahead=0,
    )
    assert prm.parents == [[0, 0, 0, 0], [0, 0, 2, 2], [2, 2, 3, 3], [3, 3], [1, 1]]
    assert prm.children == [["a", "b", "c", "d"], ["ab", "ad", "ca", "ca"], ["cad", "cad", "cad", "cac"], ["cacd", "cacb"], ["cacbd", "cacbb"]]
    assert paths == ["ad", "cacbd", "d", "cad"] and values == [0.95, 0.9, 0.8, 0.5]
    assert sampled == 9 + 8 + 9 + 4 + 4  # c takes three tokens, all others two


def test_a_finished_beam_frees_its_place(search):
    """Both d and c lead after step 1. d has ended, so the next best, a, is kept beside c."""
    _, _, _, prm = search(
        beam.beam_search, ["dcab", "dddd"], {"d": 0.9, "c": 0.8, "a": 0.7, "b": 0.1, "cd": 0.5, "ad": 0.5}, n=4, beam_width=2, lookahead=0
    )
    assert prm.children[1] == ["cd", "cd", "ad", "ad"]


def test_lookahead_changes_a_choice(search):
    """a is the better step, but what the policy would greedily write after it (a again) is worse than after b."""
    scores = {"a": 0.9, "b": 0.5, "aa": 0.1, "ba": 0.8, "ad": 0.3, "bd": 0.4, "ac": 0.0, "bc": 0.0, "aad": 0.1, "bad": 0.1}
    plain = search(beam.beam_search, ["ab", "dd"], scores, n=2, beam_width=2, lookahead=0)
    ahead = search(beam.beam_search, ["ab", "dd"], scores, n=2, beam_width=2, lookahead=1)
    assert plain[3].children == [["a", "b"], ["ad", "ad"]] and ahead[3].children == [["a", "b"], ["bd", "bd"]]
    assert ahead[2] == plain[2] and ahead[1] == [0.4]  # rollouts are no samples; an ended beam has its own score


def test_dvts_by_hand(search):
    paths, values, sampled, prm = search(
        dvts.dvts, ["abcd", "dabd", "dd"],
        {"a": 0.3, "b": 0.2, "c": 0.7, "d": 0.6,  # each subtree its best: a, though d is better, and c
         "ad": 0.4, "aa": 0.5, "cb": 0.1, "cd": 0.95,  # the second subtree ends with cd; in the first, ad is turned down
         "aad": 0.3},
        n=4, beam_width=2,
    )
    assert prm.parents == [[0, 0, 0, 0], [0, 0, 2, 2], [1, 1]]
    assert prm.children == [["a", "b", "c", "d"], ["ad", "aa", "cb", "cd"], ["aad", "aad"]]
    assert paths == ["cd", "aad", "aad"] and values == [0.95, 0.3, 0.3]
    assert sampled == 9 + 8 + 4


def test_subtrees_of_dvts_never_mix(search):
    """Random scores: whatever the other subtrees hold, a subtree's choices are those it makes alone."""
    rng = random.Random(0)
    for _ in range(20):
        scores = Scores(rng.random())
        draws = [["".join(rng.choice("abcd") for _ in range(3)) for _ in range(4)] for _ in range(3)] + [["ddd"] * 4]
        alone = []
        for subtree in range(4):
            mine, used = [draw[subtree] for draw in draws], []
            for depth in range(1, 5):  # as many draws as this subtree lives to use
                try:
                    used = search(dvts.dvts, mine[:depth], scores, n=3, beam_width=3)
                    break
                except StopIteration:
                    pass
            alone.append((depth, used[0]))
        together = []
        for depth in range(max(depth for depth, _ in alone)):
            together.append("".join(draws[depth][subtree] for subtree in range(4) if alone[subtree][0] > depth))
        paths = search(dvts.dvts, together, scores, n=12, beam_width=3)[0]
        assert sorted(paths) == sorted(path for _, leaves in alone for path in leaves)


class Scores(dict):
    def __init__(self, salt):
        self.salt = salt

    def __missing__(self, path):
        return random.Random(f"{self.salt} {path}").random()


def test_rebase_by_hand(search):
    scores = {"a": 0.9, "b": 0.2, "c": 0.7, "d": 0.8, "ab": 0.5, "ad": 0.95, "ca": 0.6, "abd": 0.2, "cad": 0.3, "aa": 0.5, "aad": 0.1}
    # d has ended, so 3 are left for a, b, c: softmax((.9, .2, .7) / .2) x 3 = 2.146, .065, .789 -> 2, 0, 1.
    # ad has ended, so 2 are left for ab and ca: softmax((.5, .6) / .2) x 2 = .755, 1.245 -> 1, 1.
    paths, values, _, prm = search(rebase.rebase, ["abcd", "bda", "dd"], scores, n=4, balance_temperature=0.2, rounding="round")
    assert prm.children == [["a", "b", "c", "d"], ["ab", "ad", "ca"], ["abd", "cad"]]
    assert paths == ["d", "ad", "abd", "cad"] and values == [0.8, 0.95, 0.2, 0.3]
    # Rounded up from the best: a gets ceil(2.146) = 3, and nothing is left; of ab, aa (alike) each gets ceil(1) = 1.
    paths, _, _, prm = search(rebase.rebase, ["abcd", "bda", "dd"], scores, n=4, balance_temperature=0.2, rounding="ceil")
    assert prm.children == [["a", "b", "c", "d"], ["ab", "ad", "aa"], ["abd", "aad"]]
    assert paths == ["d", "ad", "abd", "aad"]


# --- REBASE's allocation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding, budget, rewards, temperature, expected", [
    # exp((R - .9) / .2) = 1, .3679, .1353, .0183, in all 1.5215
    ("round", 8, [0.9, 0.7, 0.5, 0.1], 0.2, [5, 2, 1, 0]),  # shares 5.26, 1.93, .71, .10
    ("ceil", 8, [0.9, 0.7, 0.5, 0.1], 0.2, [6, 2, 0, 0]),  # ceil(5.26) = 6, ceil(2 x .3679 / .5215 = 1.41) = 2, nothing left
    ("round", 16, [0.1, 0.9, 0.5, 0.7], 0.2, [0, 11, 1, 4]),  # shares .19, 10.52, 1.42, 3.87
    ("ceil", 16, [0.1, 0.9, 0.5, 0.7], 0.2, [0, 11, 1, 4]),  # ceil(10.52), ceil(5 x .7055 = 3.53), ceil(1 x .88)
    ("round", 4, [0.5, 0.5, 0.5, 0.5], 0.2, [1, 1, 1, 1]),
    ("ceil", 5, [0.5, 0.5, 0.5, 0.5], 0.2, [2, 1, 1, 1]),
    ("round", 2, [0.5, 0.5, 0.5], 0.2, [1, 1, 0]),  # three times Round(.67) = 1 would be one too many
    ("round", 1, [0.1, 0.2], 0.2, [0, 1]),
    ("ceil", 3, [0.2, 0.9], 1e-9, [0, 3]),
    ("round", 3, [0.2, 0.9], 1e-9, [0, 3]),
    ("round", 4, [0.2, 0.9], 1e9, [2, 2]),
    ("round", 4, [-math.inf, 0.9, 0.9], 0.01, [0, 2, 2]),
    ("ceil", 4, [-math.inf, -math.inf], 0.2, [2, 2]),
])
def test_allocation_by_hand(rounding, budget, rewards, temperature, expected):
    assert rebase.allocate(budget, rewards, temperature, rounding) == expected


def test_allocation_always_meets_the_budget():
    rng = random.Random(0)
    for _ in range(4000):
        rewards = [rng.choice([rng.random(), rng.choice([0.0, 1.0, -math.inf])]) for _ in range(rng.randint(1, 40))]
        budget, temperature = rng.randint(1, 300), 10 ** rng.uniform(-300, 300)
        for rounding in ("round", "ceil"):
            children = rebase.allocate(budget, rewards, temperature, rounding)
            assert sum(children) == budget and min(children) >= 0
            ranked = sorted(zip(rewards, children))
            if temperature < 1e3:  # beyond that different rewards weigh the same in floating point
                assert all(b >= a for (x, a), (y, b) in zip(ranked, ranked[1:]) if x < y)


# --- the edges, on the bundled pair -----------------------------------------------------------------------------------


QUESTION = "Start with 12. Add 5, multiply by 2. What is the result?"


def run_all(pair, n, width, max_steps=12, max_new_tokens=200, policy=None, temperature=0.8, problems=(QUESTION,), seeds=(7,)):
    """{script: [(text tokens, scores, finished, cut)]} of every strategy for the last of the problems."""
    own, tokenizer, prm = pair
    policy = policy or own
    start = lambda: (policy, tokenizer, prm, list(problems), [torch.Generator().manual_seed(seed) for seed in seeds])
    common = dict(temperature=temperature, top_p=1.0, max_new_tokens=max_new_tokens)
    tree = dict(common, n=n, max_steps=max_steps, reduce=SEARCH["reduce"], on_step=SEARCH["on_step"])
    eos = policy.generation_config.eos_token_id
    found = {
        "beam": beam.beam_search(*start(), beam_width=width, lookahead=0, **tree),
        "dvts": dvts.dvts(*start(), beam_width=width, **tree),
        "rebase": rebase.rebase(*start(), balance_temperature=0.2, rounding="round", **tree),
    }
    assert all(len(nodes) == len(sampled) == len(problems) for nodes, sampled in found.values())
    found = {name: [(node.tokens, node.scores, node.finished, node.cut) for node in nodes[-1]] for name, (nodes, _) in found.items()}
    plain = majority.sample_solutions(policy, tokenizer, *start()[3:], n=n, **common)
    solutions, scores = best_of_n.best_of_n(*start(), n=n, on_step=SEARCH["on_step"], **common)
    assert solutions == plain
    found["best_of_n"] = [(tokens, steps, tokens[-1] in eos, tokens[-1] not in eos) for tokens, steps in zip(solutions[-1], scores[-1])]
    return found


def test_problems_solved_side_by_side_are_solved_as_if_alone(pair):
    """Four problems of different length in one batch, that is with ragged prompts, steps and depths."""
    others = ["Evaluate $8+5$.", "Start with 90. Divide by 3, add 5, subtract 9, divide by 2, add 7. What is the result?", "Evaluate $(7+5)\\div2+30$."]
    for n, width in [(6, 2), (5, 4)]:
        alone, together = (run_all(pair, n, width, problems=[*front, QUESTION], seeds=range(7 - len(front), 8), temperature=1.2)
                           for front in ([], others))
        assert len({len(tokens) for ended in together.values() for tokens, *_ in ended}) > 1
        for name, ended in together.items():
            assert [node[0] for node in ended] == [node[0] for node in alone[name]]
            for here, there in zip(ended, alone[name]):
                assert here[1] == pytest.approx(there[1], abs=1e-4) and here[2:] == there[2:]


@pytest.mark.parametrize("n, width", [(1, 4), (3, 4), (4, 4), (6, 4), (10, 4), (5, 1)])
def test_any_n_and_m(pair, n, width):
    for name, ended in run_all(pair, n, width).items():
        assert 1 <= len(ended) <= n and (len(ended) == n or name in ("beam", "dvts"))
        for tokens, scores, finished, cut in ended:
            assert finished != cut and finished == (tokens[-1] == pair[1].eos_token_id)
            text = pair[1].decode(tokens, skip_special_tokens=True)
            assert len(scores) == len([step for step in text.split("\n\n") if step.strip()])
        if name == "beam":
            assert len({tuple(tokens) for tokens, *_ in ended}) == len(ended)


@pytest.mark.parametrize("limits", [dict(max_steps=1), dict(max_steps=2), dict(max_new_tokens=1), dict(max_new_tokens=25)])
def test_limits(pair, limits):
    for name, ended in run_all(pair, 8, 4, **limits).items():
        assert ended
        for tokens, _, finished, cut in ended:
            assert len(tokens) <= limits.get("max_new_tokens", 200)
            assert cut == (not finished) and (finished or len(tokens) == limits.get("max_new_tokens", 200))
        if "max_steps" in limits:  # the last step runs to the end of text
            assert any(finished for *_, finished, _ in ended)


@pytest.mark.parametrize("table, finished, text", [
    ({"ĊĊ": ["a"], "a": ["a"]}, False, "a" * 30),  # never a separator, never an end
    ({"ĊĊ": ["ĊĊ"]}, False, "\n\n" * 30),  # nothing but empty steps
    ({"ĊĊ": ["<|eot_id|>"]}, True, ""),  # all ended at step 1, without a word
    ({"ĊĊ": ["d"], "d": ["<|eot_id|>"]}, True, "d"),  # all ended at step 1
    ({"ĊĊ": ["<|finetune_right_pad_id|>"], "<|finetune_right_pad_id|>": ["<|finetune_right_pad_id|>"]}, False, ""),  # only padding
])
def test_policies_that_misbehave(pair, table, finished, text):
    policy = bigram_policy(pair[1], table)
    for name, ended in run_all(pair, 8, 4, max_steps=5, max_new_tokens=30, policy=policy, temperature=1.0).items():
        assert len(ended) == {"beam": 1}.get(name, 8)
        for tokens, scores, is_finished, _ in ended:
            assert is_finished == finished and pair[1].decode(tokens, skip_special_tokens=True) == text
            assert len(scores) == bool(text.strip())


def test_a_score_that_is_no_number_never_wins(search):
    for bad in (math.nan, math.inf, -math.inf):
        scores = {"a": bad, "b": 0.1, "c": bad, "bd": 0.3}
        for function, settings in [
            (beam.beam_search, dict(beam_width=4, lookahead=0)),
            (dvts.dvts, dict(beam_width=4)),
            (rebase.rebase, dict(balance_temperature=0.2, rounding="round")),
            (rebase.rebase, dict(balance_temperature=0.2, rounding="ceil")),
        ]:
            assert search(function, ["abcc", "dddd"], scores, n=4, **settings)[3].children[1] == ["bd"] * 4


def test_worth():
    assert beam.worth([0.9, 0.2], min) == 0.2 and beam.worth([0.5, 0.5], math.prod) == 0.25
    for bad in (math.nan, math.inf):  # min() and max() pass over a NaN as they please
        assert beam.worth([0.9, bad], min) == beam.worth([bad, 0.9], min) == -math.inf
    assert beam.worth([], min) == -math.inf


def test_a_blank_step_never_wins_by_its_parents_score(pair):
    """Parent .9, its one real continuation .8: a blank step beside it must not be taken for .9."""
    policy = bigram_policy(pair[1], LETTERS)
    parent = beam.Node(0, 0, scores=[0.9])
    blank, real = pair[1].convert_tokens_to_ids(["ĊĊ", "a"])
    children = [beam.grow(policy, SEARCH["reduce"], 0, parent, tokens, scores, 9) for tokens, scores in [([blank], []), ([real, blank], [0.8])]]
    assert max(children, key=lambda child: child.value) is children[1]
    end = beam.grow(policy, SEARCH["reduce"], 0, parent, [pair[1].eos_token_id], [], 9)  # but an end needs no step of its own
    assert end.finished and end.value == 0.9


def test_lookahead_does_not_take_a_blank_step_for_its_parent(pair, monkeypatch):
    """Behind .9 a blank step, whose rollout is blank too, and a real one of .8: the real one is continued."""
    tokenizer, (policy, _, _) = pair[1], pair
    a, blank = tokenizer.convert_tokens_to_ids(["a", "ĊĊ"])
    written = iter([[[a, blank]] * 2, [[blank], [a, blank]], [[tokenizer.eos_token_id]] * 2])
    monkeypatch.setattr(beam, "sample_steps", lambda *_, **__: (next(written), None))
    monkeypatch.setattr(beam, "look_ahead", lambda policy, tokenizer, prefixes, children, *_: [""] * len(children))
    asked, scores = [], iter([[[0.9]] * 2, [[], [0.8]], [[], []]])
    prm = SimpleNamespace(start=lambda problems: None, peek=lambda texts: [[] for _ in texts],
                          score=lambda parents, texts: asked.append(parents) or next(scores))
    beam.beam_search(policy, tokenizer, prm, ["?"], [torch.Generator()], n=2, beam_width=2, lookahead=1, **SEARCH)
    assert asked == [[0, 0], [0, 0], [1, 1]]


def test_a_step_that_was_cut_does_not_end_a_subtree_that_can_go_on(search):
    """Of five tokens a takes two, and c the other three: it is cut, and aa, which scores less, goes on while it can."""
    scores = {"a": 0.5, "ac": 0.9, "aa": 0.4, "aad": 0.6}
    paths, values, *_ = search(dvts.dvts, ["aa", "ca", "dd"], scores, n=2, beam_width=2, max_new_tokens=5)
    assert paths == ["aad", "aad"] and values == [0.6, 0.6]


@pytest.mark.parametrize("script, name, extra", [
    (dvts, "dvts", dict(beam_width=4)),
    (beam, "beam_search", dict(beam_width=4, lookahead=0)),
    (rebase, "rebase", dict(balance_temperature=0.2, rounding="round")),
])
def test_a_whole_search_equals_one_that_reuses_nothing(pair, monkeypatch, script, name, extra):
    """The search once with both caches and once with every text read anew for each token and score: same tree."""
    policy, tokenizer, prm = pair
    questions = ["Start with 12. Add 5, multiply by 2, subtract 9. What is the result?", QUESTION]
    settings = dict(SEARCH, n=8, max_new_tokens=200, temperature=1.2, **extra)
    generators = lambda: [torch.Generator().manual_seed(seed) for seed in (2, 3)]

    class PlainPRM:
        def start(self, problems):
            self.paths = [(problem, []) for problem in problems]

        def score(self, parents, texts):
            self.paths = [(self.paths[p][0], self.paths[p][1] + ([t.strip()] if t.strip() else [])) for p, t in zip(parents, texts)]
            return [full_score(prm, *path)[-1:] if text.strip() else [] for path, text in zip(self.paths, texts)]

    def plain_steps(policy, texts, parents, uniforms, left, ends, *, temperature, top_p):
        steps = [plain_step(policy, tokenizer, *one, temperature) for one in zip([texts[p] for p in parents], uniforms, left)]
        return steps, [texts[p] + step for p, step in zip(parents, steps)]

    cached = getattr(script, name)(policy, tokenizer, prm, questions, generators(), **settings)
    monkeypatch.setattr(script, "prefill", lambda policy, prompts: prompts)
    monkeypatch.setattr(script, "sample_steps", plain_steps)
    plain = getattr(script, name)(policy, tokenizer, PlainPRM(), questions, generators(), **settings)
    assert cached[1] == plain[1]
    for found, expected in zip(cached[0], plain[0]):
        assert [node.tokens for node in found] == [node.tokens for node in expected]
        for a, b in zip(found, expected):
            assert a.scores == pytest.approx(b.scores, abs=1e-4)

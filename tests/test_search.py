"""The search loops on trees small enough to work out by hand, and at their edges.

The policy here is a real Llama with hand-set weights which only knows the last token (a bigram
table): after "\\n\\n" it writes a, b, c or d, as the random numbers say; a, b and ce end a step, d
ends the text. Solutions are written as the letters of their steps: "abd" is three steps. The PRM is
a table from such paths to scores.
"""

import gc
import math
import random
import sys
import weakref

import naive
import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

import beam
import best_of_n
import dvts
import majority
import mcts
import particle
import rebase
from common.prm import Scorer


def bigram_policy(tokenizer, table):
    """After token x each of table[x] is equally likely, and nothing else is. Attention and MLP add
    nothing."""
    size = len(tokenizer)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    policy = LlamaForCausalLM(config).eval()
    logits = torch.full((size, size), -200.0)
    ids = tokenizer.convert_tokens_to_ids
    for token, following in table.items():
        logits[ids(token), ids(following)] = 0.0
    with torch.no_grad():
        for weights in policy.model.layers.parameters():
            weights.zero_()
        policy.model.embed_tokens.weight.copy_(torch.eye(size))
        # The norm makes a one-hot vector sqrt(size) long.
        policy.lm_head.weight.copy_(logits.T / math.sqrt(size))
    eos = [tokenizer.eos_token_id]
    policy.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=size - 1)
    return policy


LETTERS = {
    "ĊĊ": ["a", "b", "c", "d"],
    "a": ["ĊĊ"],
    "b": ["ĊĊ"],
    "c": ["e"],
    "e": ["ĊĊ"],
    "d": ["<|eot_id|>"],
}


def path_of(node):
    return "".join(step.text.strip()[:1] for step in node.path()[1:])


class TablePRM:
    def __init__(self, scores, noise=0.0):
        self.scores = scores
        self.noise = noise
        self.random = random.Random(1)
        self.asked = []  # of each call the paths of the children

    def read_problems(self, roots):
        pass

    def score(self, children, separator):
        self.asked.append([path_of(child) for child in children])
        for child in children:
            if child.text.strip():
                noise = self.noise * self.random.uniform(-1, 1)
                child.scores = [self.scores[path_of(child)] + noise]


class RandomScores(dict):
    """A score for any path, decided by its letters."""

    def __init__(self, salt, levels=None):
        super().__init__()
        self.salt = salt
        self.levels = levels  # so few different scores; None: any

    def __missing__(self, path):
        score = random.Random(f"{self.salt} {path}").random()
        return round(score * self.levels) / self.levels if self.levels else score


@pytest.fixture
def search(pair, monkeypatch):
    """search(function, draws, scores, ...) -> (paths of what it returns, values, count of tokens,
    the PRM). draws: for each depth the letters that the policy is to write."""
    tokenizer = pair[1]
    policy = bigram_policy(tokenizer, LETTERS)
    order = sorted("abcd", key=tokenizer.convert_tokens_to_ids)

    def run(function, draws, scores, noise=0.0, moved=None, **settings):
        draws = iter(draws)
        sampled = []

        def random_numbers(parents, generators, max_new_tokens):
            letters = next(draws)
            assert len(letters) == len(parents), (letters, [path_of(node) for node in parents])
            numbers = torch.full((len(parents), max_new_tokens), 0.5)
            numbers[:, 0] = torch.tensor([(order.index(one) + 0.5) / 4 for one in letters])
            return numbers

        def on_step(depth, children):
            sampled.extend(len(child.tokens) for child in children)

        prm = scores if isinstance(scores, TablePRM) else TablePRM(scores, noise)
        settings = {"max_new_tokens": 100, "temperature": 1.0, "on_step": on_step, **settings}
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[function.__module__], "random_numbers", random_numbers)
            if moved is not None:
                patch.setattr(torch, "rand", lambda size, generator: torch.full((size,), moved))
            [solutions] = function(policy, tokenizer, prm, ["?"], **settings)
        assert next(draws, None) is None, "fewer steps than expected"
        paths = ["".join(step[:1] for step in one.text.split("\n\n")) for one in solutions]
        return paths, [one.value for one in solutions], sum(sampled), prm

    return run


# --- hand-computed trees --------------------------------------------------------------------------


def test_beam_search_by_hand(search):
    scores = {"a": 0.9, "b": 0.2, "c": 0.7, "d": 0.8}  # d has ended; a and c are kept
    scores |= {"ab": 0.3, "ad": 0.95, "ca": 0.6}  # ad has ended; ca came twice, both ahead of ab
    scores |= {"cad": 0.5, "cac": 0.1}  # cad ended three times, with d and ad five: but cac...
    paths, values, sampled, prm = search(
        beam.beam_search, ["abcd", "bdaa", "dddc"], scores, n=4, beam_width=2
    )
    # ... is worse than ad, which is finished, as are four others: it is over.
    assert prm.asked == [
        ["a", "b", "c", "d"],
        ["ab", "ad", "ca", "ca"],
        ["cad", "cad", "cad", "cac"],
    ]
    assert paths == ["ad", "d", "cad", "cad"]
    assert values == [0.95, 0.8, 0.5, 0.5]
    assert sampled == 9 + 8 + 9  # c takes three tokens, all others two


def test_beam_search_goes_on_while_a_beam_is_better_than_all_that_ended(search):
    scores = {"a": 0.9, "d": 0.3, "aa": 0.8, "aad": 0.7, "ad": 0.2}
    paths, values, _, prm = search(
        beam.beam_search, ["da", "da", "da"], scores | {"aaa": 0.1}, n=2, beam_width=2
    )
    assert prm.asked[1] == ["ad", "aa"]  # with d and ad two have ended, but aa is better
    assert paths == ["aad", "d"] and values == [0.7, 0.3]


def test_beam_search_is_over_when_n_have_finished(search):
    """Just as many, and the best of them as good as any beam."""
    scores = {"d": 0.9, "a": 0.5, "ad": 0.3, "aa": 0.2}
    paths, *_ = search(beam.beam_search, ["da", "da"], scores, n=2, beam_width=2)
    assert paths == ["d", "ad"]


def test_a_finished_beam_frees_its_place(search):
    """Both d and c lead after step 1. d has ended, so the next best, a, is kept beside c."""
    scores = {"d": 0.9, "c": 0.8, "a": 0.7, "b": 0.1, "cd": 0.5, "ad": 0.5}
    _, _, _, prm = search(beam.beam_search, ["dcab", "dddd"], scores, n=4, beam_width=2)
    assert prm.asked[1] == ["cd", "cd", "ad", "ad"]


def test_what_is_finished_comes_before_what_is_cut(search):
    """c takes three tokens and is cut, with the better score."""
    scores = {"a": 0.5, "c": 0.9, "ac": 0.9, "ad": 0.1}
    paths, values, *_ = search(
        beam.beam_search, ["aa", "cd"], scores, n=2, beam_width=2, max_new_tokens=4
    )
    assert paths == ["ad", "ac"] and values == [0.1, 0.9]


@pytest.mark.parametrize("function", [beam.beam_search, dvts.dvts])
def test_lookahead_changes_a_choice(search, function):
    """a is the better step, but what follows greedily (a again) is worse than after b."""
    scores = {"a": 0.9, "b": 0.5, "aa": 0.1, "ba": 0.8, "ad": 0.3, "bd": 0.4}
    plain = search(function, ["ab", "dd"], scores, n=2, beam_width=2)
    ahead = search(function, ["ab", "dd"], scores, n=2, beam_width=2, lookahead=1)
    assert plain[3].asked == [["a", "b"], ["ad", "ad"]]
    assert ahead[3].asked == [["a", "b"], ["aa", "ba"], ["bd", "bd"]]
    assert ahead[2] == plain[2] and ahead[1] == [0.4, 0.4]  # rollouts are no samples


@pytest.mark.parametrize("function", [beam.beam_search, dvts.dvts])
@pytest.mark.parametrize("reduce, kept", [(min, "a"), (math.prod, "a"), (lambda s: s[-1], "b")])
def test_lookahead_counts_the_steps_before(search, function, reduce, kept):
    """Behind b comes the better step, but b itself is bad: min and prod must not forget it."""
    scores = {"a": 0.9, "b": 0.1, "aa": 0.7, "ba": 0.8, "ad": 0.6, "bd": 0.6}
    prm = search(function, ["ab", "dd"], scores, n=2, beam_width=2, lookahead=1, reduce=reduce)[3]
    assert prm.asked[2] == [kept + "d", kept + "d"]


def test_lookahead_looks_two_steps_ahead_and_not_beyond_the_last_depth(search):
    """After a come aa .9 and aaa .1, after b ba .2 and baa .5: at two steps b is the better."""
    scores = {"a": 0.6, "b": 0.6, "aa": 0.9, "ba": 0.2, "aaa": 0.1, "baa": 0.5, "bd": 0.4}
    settings = {"n": 2, "beam_width": 2, "lookahead": 2, "max_steps": 2}
    prm = search(dvts.dvts, ["ab", "dd"], scores, **settings)[3]
    assert prm.asked == [["a", "b"], ["aa", "ba"], ["aaa", "baa"], ["bd", "bd"]]


def test_dvts_by_hand(search):
    scores = {
        "a": 0.3,
        "b": 0.2,
        "c": 0.7,
        "d": 0.6,
    }  # each subtree its best: a, though d is better
    scores |= {"ad": 0.4, "aa": 0.5, "cb": 0.1, "cd": 0.95}  # the second ends; ad is turned down
    paths, values, sampled, prm = search(
        dvts.dvts, ["abcd", "dabd", "dd"], scores | {"aad": 0.3}, n=4, beam_width=2
    )
    assert prm.asked == [["a", "b", "c", "d"], ["ad", "aa", "cb", "cd"], ["aad", "aad"]]
    assert paths == ["cd", "aad", "aad"] and values == [0.95, 0.3, 0.3]
    assert sampled == 9 + 8 + 4


def test_a_subtree_that_is_finished_returns_nothing_that_was_cut(search):
    """Of two tokens d takes both and has ended; a is cut."""
    scores = {"d": 0.9, "a": 0.1}
    settings = {"n": 2, "beam_width": 2, "max_new_tokens": 2}
    assert search(dvts.dvts, ["da"], scores, **settings)[0] == ["d"]


def test_subtrees_of_dvts_never_mix(search):
    """Random scores: whatever the other subtrees hold, a subtree's choices are those it makes
    alone."""
    rng = random.Random(0)
    for _ in range(10):
        scores = RandomScores(rng.random())
        draws = [["".join(rng.choices("abcd", k=3)) for _ in range(4)] for _ in range(3)]
        draws.append(["ddd"] * 4)
        alone = []
        for subtree in range(4):
            mine = [draw[subtree] for draw in draws]
            for depth in range(1, 5):  # as many draws as this subtree lives to use
                try:
                    paths = search(dvts.dvts, mine[:depth], scores, n=3, beam_width=3)[0]
                    break
                except StopIteration:
                    pass
            alone.append((depth, paths))
        together = []
        for depth in range(max(depth for depth, _ in alone)):
            letters = [draws[depth][i] for i in range(4) if alone[i][0] > depth]
            together.append("".join(letters))
        paths = search(dvts.dvts, together, scores, n=12, beam_width=3)[0]
        assert sorted(paths) == sorted(path for _, leaves in alone for path in leaves)


def test_rebase_by_hand(search):
    # d has ended, so 3 are left for a, b, c: softmax((.9, .2, .7) / .2) x 3 = 2.146, .065, .789.
    # ad has ended, so 2 are left for ab and ca: softmax((.5, .6) / .2) x 2 = .755, 1.245.
    scores = {"a": 0.9, "b": 0.2, "c": 0.7, "d": 0.8, "ab": 0.5, "ad": 0.95, "ca": 0.6}
    scores |= {"abd": 0.2, "cad": 0.3, "aa": 0.5, "aad": 0.1}
    paths, values, _, prm = search(rebase.rebase, ["abcd", "bda", "dd"], scores, n=4)
    assert prm.asked == [["a", "b", "c", "d"], ["ab", "ad", "ca"], ["abd", "cad"]]
    assert paths == ["d", "ad", "abd", "cad"] and values == [0.8, 0.95, 0.2, 0.3]
    # Rounded up from the best: a gets ceil(2.146) = 3, and nothing is left. Then ab and aa, which
    # are alike, get ceil(1) = 1 each.
    paths, _, _, prm = search(rebase.rebase, ["abcd", "bda", "dd"], scores, n=4, rounding="ceil")
    assert prm.asked == [["a", "b", "c", "d"], ["ab", "ad", "aa"], ["abd", "aad"]]
    assert paths == ["d", "ad", "abd", "aad"]


def test_particle_filter_by_hand(search):
    # d has ended, and is drawn like the others. The odds are (9, 1/4, 3, 3/2), in all 13.75: times
    # 4 = 2.618, .073, .873, .436, laid end to end 2.618, 2.691, 3.564, 4. Points at .5, 1.5, ...:
    # three times a, once c. d is lost.
    scores = {"a": 0.9, "b": 0.2, "c": 0.75, "d": 0.6}
    # ad has ended. The odds are (4, 1/3, 1, 2/3), in all 6: laid end to end 2.667, 2.889, 3.556, 4.
    # So ad comes three times, and is not continued, and ab goes on.
    scores |= {"ad": 0.8, "aa": 0.25, "ab": 0.5, "cb": 0.4, "abd": 0.3}
    paths, values, _, prm = search(
        particle.particle_filter, ["abcd", "dabb", "d"], scores, n=4, moved=0.5
    )
    assert prm.asked == [["a", "b", "c", "d"], ["ad", "aa", "ab", "cb"], ["abd"]]
    assert paths == ["ad", "ad", "ad", "abd"] and values == [0.8, 0.8, 0.8, 0.3]
    # At T = .5 the odds are squared: a 81, c 9, in all 92.31. ad 16, in all 18.11: nothing goes on.
    paths, _, _, prm = search(
        particle.particle_filter,
        ["abcd", "dabb"],
        scores,
        n=4,
        moved=0.25,
        weight_temperature=0.5,
    )
    assert prm.asked[1] == ["ad", "aa", "ab", "ab"] and paths == ["ad"] * 4


def test_mcts_by_hand(search):
    scores = {"a": 0.9, "b": 0.7, "aa": 0.3, "ad": 0.8, "aad": 0.2, "aab": 0.1}
    scores |= {"bd": 0.6, "ba": 0.5}
    # Turn 1: a .9, b .7. Turn 2, below a: ad has ended and is the best: .8 counts for a and the
    # root, so that Q(a) = (.9 + .8) / 2 = .85 in two visits, N = 2.
    # UCT with c = 1: a .85 + sqrt(ln 2 / 2) = 1.439, b .7 + sqrt(ln 2) = 1.533. So b.
    paths, values, _, prm = search(mcts.mcts, ["ab", "ad", "da"], scores, n=2, width=2)
    assert prm.asked == [["a", "b"], ["aa", "ad"], ["bd", "ba"]]
    assert paths == ["ad", "bd"] and values == [0.8, 0.6]
    # With c = .3 a again: .85 + .177 = 1.027, b .7 + .25 = .950. Below it only aa is open. Its aad
    # is the best of two: .2 makes Q(a) = 1.9 / 3 = .633 in three visits, so with N = 3 now b:
    # .633 + .3 sqrt(ln 3 / 3) = .815, .7 + .3 sqrt(ln 3) = 1.014.
    paths, values, _, prm = search(
        mcts.mcts, ["ab", "ad", "db", "da"], scores, n=3, width=2, exploration=0.3
    )
    assert prm.asked == [["a", "b"], ["aa", "ad"], ["aad", "aab"], ["bd", "ba"]]
    assert paths == ["ad", "bd", "aad"] and values == [0.8, 0.6, 0.2]


# --- particles ------------------------------------------------------------------------------------


def nodes_of(values):
    root = particle.Node(None, 0, 9)
    return [particle.Node(root, 0, 9, value=value) for value in values]


def test_shares_are_the_odds():
    def shares(values, temperature=1.0):
        return particle.shares(nodes_of(values), temperature).tolist()

    assert shares([0.9, 0.5, 0.2]) == pytest.approx([9 / 10.25, 1 / 10.25, 0.25 / 10.25])
    assert shares([0.8, 0.5], 0.5) == pytest.approx([16 / 17, 1 / 17])  # odds to the power 1 / T
    assert shares([0.8, 0.5], 1e300) == pytest.approx([0.5, 0.5])
    assert shares([0.8, 0.5], 1e-300) == [1.0, 0.0]
    assert shares([1.0, 1 - 1e-7]) == pytest.approx([0.5, 0.5])  # clipped, or they were infinite
    assert shares([0.0, 0.0, 1e-7]) == pytest.approx([1 / 3] * 3)
    assert shares([-math.inf, 0.0]) == [0.0, 1.0]
    assert shares([-math.inf, -math.inf]) == [0.5, 0.5]
    cut, alive = nodes_of([0.9, 0.1])
    cut.tokens_left = 0
    assert particle.shares([cut, alive], 1.0).tolist() == [0.0, 1.0]


def counts(chosen, n):
    return [chosen.count(i) for i in range(n)]


def test_systematic_draws_are_the_floor_or_the_ceiling_of_the_share():
    rng = random.Random(0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        n = rng.randint(1, 70)
        theta = torch.tensor([rng.choice([0, 1e-9, rng.random(), 30]) for _ in range(n)]).double()
        theta = theta / theta.sum() if theta.sum() else torch.full_like(theta, 1 / n)
        drawn = counts(particle.resample(theta, "systematic", generator), n)
        assert sum(drawn) == n
        for count, share in zip(drawn, (n * theta).tolist()):
            assert math.floor(share - 1e-9) <= count <= math.ceil(share + 1e-9)


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_draws_are_unbiased(resampling):
    """Over many draws the mean count is N times the share, and the variance is what theory says."""
    theta = torch.tensor([0.43, 0.0, 0.27, 0.19, 0.1, 0.01], dtype=torch.float64)
    n = len(theta)
    generator = torch.Generator().manual_seed(1)
    draws = 4000
    drawn = [counts(particle.resample(theta, resampling, generator), n) for _ in range(draws)]
    for i, share in enumerate((n * theta).tolist()):
        of_one = torch.tensor([counts[i] for counts in drawn], dtype=torch.float64)
        part = share % 1
        variance = part * (1 - part)
        if resampling == "multinomial":
            variance = share * (1 - share / n)
        error = math.sqrt(variance / draws)
        assert abs(of_one.mean() - share) <= 4.5 * error
        assert float(of_one.var()) == pytest.approx(variance, rel=0.15, abs=1e-9)


def test_one_random_number_draws_all_and_the_other_way_n(pair):
    theta = torch.full((8,), 1 / 8, dtype=torch.float64)
    for resampling, numbers in [("systematic", 1), ("multinomial", 8)]:
        one, other = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
        chosen = particle.resample(theta, resampling, one)
        torch.rand(numbers, generator=other)
        assert torch.equal(one.get_state(), other.get_state())
        assert (chosen == list(range(8))) == (resampling == "systematic")


def test_particles_that_are_finished_are_never_continued_nor_revived(pair):
    """Whatever is drawn: nothing follows an end, and what was lost does not come back."""
    policy = bigram_policy(pair[1], LETTERS)
    for resampling in ("systematic", "multinomial"):
        for seed in range(20):
            prm = TablePRM(RandomScores(seed))
            known = {}

            def on_step(depth, children):
                for child in children:
                    assert not child.parent.ended
                    assert depth == 1 or child.parent.number in known[depth - 1]
                known[depth] = {child.number: child.ended for child in children}

            generators = [torch.Generator().manual_seed(seed)]
            [found] = particle.particle_filter(
                policy,
                pair[1],
                prm,
                ["?"],
                generators,
                n=8,
                temperature=1.0,
                max_new_tokens=60,
                resampling=resampling,
                on_step=on_step,
            )
            assert len(found) == 8
            for one in found:
                assert known[len(one.path)][one.path[-1]]


def test_a_copy_of_a_particle_is_a_name_of_its_node(pair, monkeypatch):
    """One of many names is laid out in the cache once, and its copies are the same solution."""
    policy = bigram_policy(pair[1], LETTERS)
    given = []
    lay_out = particle.lay_out

    def watch(nodes):
        given.append(nodes)
        return lay_out(nodes)

    monkeypatch.setattr(particle, "lay_out", watch)
    settings = {"n": 16, "temperature": 1.0, "max_new_tokens": 60}
    prm = TablePRM(RandomScores(0))
    [found] = particle.particle_filter(policy, pair[1], prm, ["?"], **settings)
    assert any(len(set(nodes)) < len(nodes) for nodes in given[1:])
    by_path = {}
    for one in found:
        assert by_path.setdefault(tuple(one.path), one) == one
    assert len(by_path) < len(found) == 16


# --- MCTS -----------------------------------------------------------------------------------------


def test_mcts_gives_the_question_more_steps_when_all_has_ended(search):
    """A policy that ends in one step: a descent is a turn, and nothing is visited twice."""
    paths, values, _, prm = search(
        mcts.mcts, ["dd", "dd", "dd"], {"d": 0.5}, n=5, width=2, exploration=0.0
    )
    assert prm.asked == [["d", "d"]] * 3 and paths == ["d"] * 5


def test_mcts_goes_on_to_an_end_and_returns_the_best(search):
    """Three turns for one solution. Five end in all, and the four best come back."""
    scores = {"a": 0.5, "d": 0.1, "aa": 0.5, "ab": 0.2, "aad": 0.3, "aa" + "a": 0.2}
    scores |= {"abd": 0.4, "ab" + "a": 0.1}
    paths, values, _, prm = search(
        mcts.mcts, ["ad", "ab", "dd", "dd"], scores, n=4, width=2, exploration=0.0
    )
    assert prm.asked == [["a", "d"], ["aa", "ab"], ["aad", "aad"], ["abd", "abd"]]
    assert paths == ["abd", "abd", "aad", "aad"] and values == [0.4, 0.4, 0.3, 0.3]


def test_mcts_without_a_score_is_worth_nothing(search):
    """c has no number for a score: with Q = 0 it is not taken while there is another."""
    scores = {"a": 0.2, "c": math.nan, "ad": 0.1, "aa": 0.1}
    _, _, _, prm = search(mcts.mcts, ["ac", "da"], scores, n=1, width=2)
    assert prm.asked == [["a", "c"], ["ad", "aa"]]


@pytest.mark.parametrize("max_steps", [1, 2, 3])
def test_mcts_ends_at_max_steps(pair, max_steps):
    """The policy never ends a text before that: a descent is max_steps turns, with one end to M."""
    table = {"ĊĊ": ["a"], "a": ["ĊĊ"]}
    turns = []
    [found] = mcts.mcts(
        bigram_policy(pair[1], table),
        pair[1],
        TablePRM(RandomScores(0)),
        ["?"],
        n=6,
        width=2,
        max_steps=max_steps,
        max_new_tokens=20,
        on_step=lambda turn, children: turns.append(len(children)),
    )
    assert len(found) == 6 and all(not one.finished and len(one.tokens) == 20 for one in found)
    assert all(len(one.path) == max_steps for one in found) and set(turns) == {2}
    assert len(turns) <= 3 * max_steps


# --- REBASE's allocation --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rounding, budget, rewards, temperature, expected",
    [
        # exp((R - .9) / .2) = 1, .3679, .1353, .0183, in all 1.5215
        ("round", 8, [0.9, 0.7, 0.5, 0.1], 0.2, [5, 2, 1, 0]),  # 5.26, 1.93, .71, .10
        ("ceil", 8, [0.9, 0.7, 0.5, 0.1], 0.2, [6, 2, 0, 0]),  # ceil(5.26), ceil(1.41)
        ("round", 16, [0.1, 0.9, 0.5, 0.7], 0.2, [0, 11, 1, 4]),  # .19, 10.52, 1.42, 3.87
        ("ceil", 16, [0.1, 0.9, 0.5, 0.7], 0.2, [0, 11, 1, 4]),  # 10.52, 3.53, .88
        ("round", 4, [0.5, 0.5, 0.5, 0.5], 0.2, [1, 1, 1, 1]),
        ("ceil", 5, [0.5, 0.5, 0.5, 0.5], 0.2, [2, 1, 1, 1]),
        ("round", 2, [0.5, 0.5, 0.5], 0.2, [1, 1, 0]),  # three times Round(.67) is one too many
        ("round", 1, [0.1, 0.2], 0.2, [0, 1]),
        ("ceil", 3, [0.2, 0.9], 1e-9, [0, 3]),
        ("round", 3, [0.2, 0.9], 1e-9, [0, 3]),
        ("round", 4, [0.2, 0.9], 1e9, [2, 2]),
        ("round", 4, [-math.inf, 0.9, 0.9], 0.01, [0, 2, 2]),
        ("ceil", 4, [-math.inf, -math.inf], 0.2, [2, 2]),
        ("ceil", 8, [0.5] * 7 + [0.5 + 6e-8], 0.2, [1] * 8),  # the batch decides nothing
        ("ceil", 9, [0.7, 0.7 - 3e-7, 0.7 + 3e-7], 0.2, [3, 3, 3]),
        ("ceil", 29, [0.01, 0.0, 0.0, 0.0], 0.1, [8, 7, 7, 7]),  # 21 / 3 is 7, but for rounding
        ("round", 5, [0.7, 0.7 - 3e-7, 0.7 + 3e-7], 0.2, [2, 2, 1]),
    ],
)
def test_allocation_by_hand(rounding, budget, rewards, temperature, expected):
    assert rebase.allocate(budget, rewards, temperature, rounding) == expected


def test_allocation_always_meets_the_budget():
    rng = random.Random(0)
    for _ in range(2000):
        count = rng.randint(1, 40)
        rewards = [rng.choice([rng.random(), 0.0, 1.0, -math.inf]) for _ in range(count)]
        budget = rng.randint(1, 300)
        temperature = 10 ** rng.uniform(-300, 300)
        for rounding in ("round", "ceil"):
            children = rebase.allocate(budget, rewards, temperature, rounding)
            assert sum(children) == budget and min(children) >= 0
            if temperature < 1e3:  # beyond that different rewards weigh the same
                ranked = sorted(zip(rewards, children))
                for (low, few), (high, many) in zip(ranked, ranked[1:]):
                    assert many >= few or high - low < 1e-6


# --- equal rewards --------------------------------------------------------------------------------


def test_values_within_a_millionth_are_made_equal():
    assert beam.evened([0.3, 0.5, 0.5 + 4e-7, 0.5 - 4e-7]) == [0.3] + [0.5 + 4e-7] * 3
    assert beam.evened([0.5, 0.5 + 2e-6]) == [0.5, 0.5 + 2e-6]
    assert beam.evened([-math.inf, 0.1, -math.inf]) == [-math.inf, 0.1, -math.inf]


@pytest.mark.parametrize(
    "function, settings",
    [
        (beam.beam_search, {"beam_width": 3}),
        (dvts.dvts, {"beam_width": 4}),
        (rebase.rebase, {}),
        (rebase.rebase, {"rounding": "ceil"}),
        (particle.particle_filter, {}),
        (particle.particle_filter, {"resampling": "multinomial"}),
        (mcts.mcts, {"width": 3}),
        (mcts.mcts, {"width": 4, "exploration": 0.0}),
    ],
)
def test_noise_does_not_decide_between_equal_rewards(pair, function, settings):
    """Scores of four different heights, so that ties abound, with and without noise of 1e-7."""
    policy = bigram_policy(pair[1], LETTERS)
    for seed in range(12):
        asked = []
        for noise in (0.0, 1e-7, 1e-7):
            prm = TablePRM(RandomScores(seed, levels=3), noise)
            prm.random.seed(len(asked))
            generators = [torch.Generator().manual_seed(seed)]
            given = policy, pair[1], prm, ["?"], generators
            [found] = function(*given, n=12, temperature=1.0, max_new_tokens=40, **settings)
            asked.append((prm.asked, [one.tokens for one in found]))
        assert asked[0] == asked[1] == asked[2]


# --- the edges, on the bundled pair ---------------------------------------------------------------

QUESTION = "Start with 12. Add 5, multiply by 2. What is the result?"
SEARCHES = {
    "beam": beam.beam_search,
    "dvts": dvts.dvts,
    "rebase": rebase.rebase,
    "particle": particle.particle_filter,
    "mcts": mcts.mcts,
    "best_of_n": best_of_n.best_of_n,
}


def run_all(
    pair, n, width, max_steps=12, policy=None, problems=(QUESTION,), seeds=(7,), **sampling
):
    """{search: Solutions of every search for the last of problems}."""
    own, tokenizer, prm = pair
    sampling = {"max_new_tokens": 200, **sampling}
    found = {}
    for name, function in SEARCHES.items():
        extra = {} if name == "best_of_n" else {"max_steps": max_steps}
        if name in ("beam", "dvts"):
            extra["beam_width"] = width
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        given = policy or own, tokenizer, prm, list(problems), generators
        solved = function(*given, n=n, **extra, **sampling)
        assert len(solved) == len(problems)
        found[name] = solved[-1]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    given = policy or own, tokenizer, list(problems), generators
    samples = majority.sample_solutions(*given, n=n, **sampling)[-1]
    assert [one.tokens for one in samples] == [one.tokens for one in found["best_of_n"]]
    return found


def test_problems_solved_side_by_side_are_solved_as_if_alone(pair):
    """Four problems of different length in one batch: ragged prompts, steps and depths."""
    others = ["Evaluate $8+5$.", "Evaluate $(7+5)\\div2+30$."]
    others.append("Start with 90. Divide by 3, add 5, subtract 9, divide by 2. What is the result?")
    for n, width in [(6, 2), (5, 4)]:
        alone = run_all(pair, n, width, temperature=1.2)
        together = run_all(
            pair, n, width, problems=[*others, QUESTION], seeds=(4, 5, 6, 7), temperature=1.2
        )
        for name, solutions in together.items():
            for here, there in zip(solutions, alone[name], strict=True):
                assert here.tokens == there.tokens and here.path == there.path
                assert here.scores == pytest.approx(there.scores, abs=1e-4)


@pytest.mark.parametrize("n, width", [(1, 4), (3, 4), (4, 4), (6, 4), (10, 4), (5, 1)])
def test_any_n_and_m(pair, n, width):
    for name, solutions in run_all(pair, n, width).items():
        assert 1 <= len(solutions) <= n
        assert len(solutions) == n or name in ("beam", "dvts")
        for one in solutions:
            assert one.finished == (one.tokens[-1] == pair[1].eos_token_id)
            assert one.text == pair[1].decode(one.tokens, skip_special_tokens=True)
            assert len(one.scores) == len([s for s in one.text.split("\n\n") if s.strip()])
            assert one.value == one.scores[-1]


@pytest.mark.parametrize(
    "limits", [{"max_steps": 1}, {"max_steps": 2}, {"max_new_tokens": 1}, {"max_new_tokens": 25}]
)
def test_limits(pair, limits):
    most = limits.get("max_new_tokens", 200)
    for solutions in run_all(pair, 8, 4, **limits).values():
        assert solutions
        for one in solutions:
            assert len(one.tokens) <= most and (one.finished or len(one.tokens) == most)
        if "max_steps" in limits:  # the last step runs to the end of text
            assert any(one.finished for one in solutions)


PAD = "<|finetune_right_pad_id|>"


@pytest.mark.parametrize(
    "table, finished, text",
    [
        ({"ĊĊ": ["a"], "a": ["a"]}, False, "a" * 30),  # never a separator, never an end
        ({"ĊĊ": ["ĊĊ"]}, False, "\n\n" * 30),  # nothing but empty steps
        ({"ĊĊ": ["<|eot_id|>"]}, True, ""),  # all ended at step 1, without a word
        ({"ĊĊ": ["d"], "d": ["<|eot_id|>"]}, True, "d"),  # all ended at step 1
        ({"ĊĊ": [PAD], PAD: [PAD]}, False, ""),  # only padding
    ],
)
def test_policies_that_misbehave(pair, table, finished, text):
    policy = bigram_policy(pair[1], table)
    found = run_all(pair, 8, 4, 5, policy, max_new_tokens=30, temperature=1.0)
    for solutions in found.values():
        assert len(solutions) == 8  # equal ones are samples like all others
        for one in solutions:
            assert one.finished == finished and one.text == text
            assert len(one.scores) == bool(text.strip())


def test_logits_that_are_no_numbers_are_an_error(pair):
    policy = bigram_policy(pair[1], LETTERS)
    with torch.no_grad():
        policy.lm_head.weight.fill_(torch.nan)
    for temperature in (0.0, 1.0):
        with pytest.raises(ValueError, match="not finite"):
            majority.sample_solutions(policy, pair[1], ["?"], n=2, temperature=temperature)


def test_what_is_no_list_of_problems_is_refused(pair):
    """A text would be solved letter by letter. Of each script, for prefill() is a copy in each."""
    searches = [beam.beam_search, best_of_n.best_of_n, dvts.dvts, rebase.rebase]
    searches += [particle.particle_filter, mcts.mcts, majority.sample_solutions]
    for search in searches:
        models = pair[:2] if search is majority.sample_solutions else pair
        for problems in ("What is $1+1$?", [], ["1+1?", None], iter(["1+1?"])):
            with pytest.raises(ValueError, match="problems must be a list of texts"):
                search(*models, problems, n=4)
        for generators in ([torch.Generator()] * 2, [None], torch.Generator()):
            with pytest.raises(ValueError, match="a torch.Generator for 1 problems"):
                search(*models, [QUESTION], generators, n=4)
        for temperature in (-0.5, math.nan):
            with pytest.raises(ValueError, match=f"a temperature of {temperature}"):
                search(*models, [QUESTION], n=4, temperature=temperature)
        with pytest.raises(ValueError, match="a top_p of 2"):
            search(*models, [QUESTION], n=4, top_p=2)


@pytest.mark.parametrize(
    "search, setting",
    [
        (rebase.rebase, {"balance_temperature": 0}),
        (rebase.rebase, {"balance_temperature": -0.2}),
        (rebase.rebase, {"rounding": "ceiling"}),
        (particle.particle_filter, {"weight_temperature": 0}),
        (particle.particle_filter, {"resampling": "stratified"}),
    ],
)
def test_settings_of_a_search_of_its_own(pair, search, setting):
    [(name, value)] = setting.items()
    with pytest.raises(ValueError, match=f"{name} is '?{value}"):
        search(*pair, [QUESTION], n=4, **setting)


def test_without_generators_problems_are_seeded_by_their_place(pair):
    policy, tokenizer, prm = pair
    default = dvts.dvts(policy, tokenizer, prm, [QUESTION, QUESTION], n=4)
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    assert dvts.dvts(policy, tokenizer, prm, [QUESTION, QUESTION], seeds, n=4) == default


def test_a_score_that_is_no_number_never_wins(search):
    for bad in (math.nan, math.inf, -math.inf):
        scores = {"a": bad, "b": 0.1, "c": bad, "bd": 0.3}
        for function, settings in [
            (beam.beam_search, {"beam_width": 4}),
            (dvts.dvts, {"beam_width": 4}),
            (rebase.rebase, {}),
            (rebase.rebase, {"rounding": "ceil"}),
            (particle.particle_filter, {}),
            (particle.particle_filter, {"resampling": "multinomial"}),
            (mcts.mcts, {}),
        ]:
            prm = search(function, ["abcc", "dddd"], scores, n=4, **settings)[3]
            assert prm.asked[1] == ["bd"] * 4


def test_worth():
    assert beam.worth([0.9, 0.2], min) == 0.2 and beam.worth([0.5, 0.5], math.prod) == 0.25
    for bad in (math.nan, math.inf):  # min() and max() pass over a NaN as they please
        assert beam.worth([0.9, bad], min) == beam.worth([bad, 0.9], min) == -math.inf
    assert beam.worth([], min) == -math.inf


def test_a_blank_step_never_wins_by_its_parents_score():
    """Parent .9, its one real continuation .8: a blank step beside it must not be taken for .9."""
    parent = beam.Node(beam.Node(None, 0, 9), 0, 9, text="a\n\n", scores=[0.9])
    blank = beam.Node(parent, 0, 8, text="\n\n")
    real = beam.Node(parent, 0, 8, text="b\n\n", scores=[0.8])
    end = beam.Node(parent, 0, 8, finished=True)  # an end needs no step of its own
    beam.set_values([blank, real, end], beam.last)
    assert [blank.value, real.value, end.value] == [-math.inf, 0.8, 0.9]


def test_lookahead_does_not_take_a_blank_step_for_its_parent(pair, monkeypatch):
    """Behind .9 a blank step, whose rollout is blank too, and a real one of .8."""
    parent = beam.Node(beam.Node(None, 0, 9), 0, 9, text="a\n\n", scores=[0.9])
    blank = beam.Node(parent, 0, 8, text="\n\n")
    real = beam.Node(parent, 0, 8, text="b\n\n", scores=[0.8])
    beam.set_values([blank, real], beam.last)

    def blank_steps(policy, tokenizer, parents, *args, **kwargs):
        return [beam.Node(one, 0, one.tokens_left - 1, text="\n\n") for one in parents]

    monkeypatch.setattr(beam, "sample_steps", blank_steps)
    prm = TablePRM({})
    beam.look_ahead(*pair[:2], prm, [blank, real], 2, "\n\n", beam.last)
    assert blank.value == -math.inf and real.value == 0.8


def test_a_step_that_was_cut_does_not_end_a_subtree_that_can_go_on(search):
    """Of five tokens a takes two, and c the other three: it is cut, and aa goes on while it can."""
    scores = {"a": 0.5, "ac": 0.9, "aa": 0.4, "aad": 0.6}
    paths, values, *_ = search(
        dvts.dvts, ["aa", "ca", "dd"], scores, n=2, beam_width=2, max_new_tokens=5
    )
    assert paths == ["aad", "aad"] and values == [0.6, 0.6]


# --- what comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["beam", "dvts", "rebase"])
def test_solutions_tell_where_they_come_from(pair, name):
    """A path holds the numbers of the nodes, which on_step saw, and their texts make the text."""
    policy, tokenizer, prm = pair
    seen = {}

    def on_step(depth, children):
        for child in children:
            seen[child.number] = (child.parent.number, child.text, len(child.path()) - 1)
            assert len(child.path()) - 1 == depth

    [solutions] = SEARCHES[name](policy, tokenizer, prm, [QUESTION], n=8, on_step=on_step)
    assert sorted(seen) == list(range(1, len(seen) + 1))
    for one in solutions:
        parents = [0, *one.path[:-1]]
        assert [seen[number][0] for number in one.path] == parents
        assert "".join(seen[number][1] for number in one.path) == one.text
        if name == "dvts":  # of each four first steps one subtree
            assert one.subtree == (one.path[0] - 1) // 4
        else:
            assert one.subtree is None


@pytest.mark.parametrize("name", SEARCHES)
def test_equal_solutions_are_samples_like_all_others(pair, name):
    """At a low temperature nearly all solutions are equal, and none is merged."""
    [solutions] = SEARCHES[name](*pair, [QUESTION], n=8, temperature=0.01)
    assert len({tuple(one.tokens) for one in solutions}) < len(solutions) == 8


def test_what_the_search_lets_go_of_is_freed(pair):
    """Keys and values are there of the tree's living part alone: of the N newest nodes, and of
    those on the way to them."""
    policy, tokenizer, prm = pair
    nodes = weakref.WeakSet()
    alive = []

    def on_step(depth, children):
        gc.collect()
        nodes.update(children)
        alive.append(sum(node.kv is not None for node in nodes))
        for node in nodes:
            assert not (node.ended and (node.kv is not None or node.prm_kv is not None))

    dvts.dvts(policy, tokenizer, prm, [QUESTION], n=8, beam_width=4, on_step=on_step)
    assert max(alive) <= 8 + 2 * len(alive)
    del on_step
    gc.collect()
    assert len(nodes) == 0


# --- against the naive twin -----------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHES)
def test_a_whole_search_equals_one_that_reuses_nothing(pair, monkeypatch, name):
    """The search once with both caches, and once with every text read anew for each token and
    score: the same tree."""
    function = SEARCHES[name]
    policy, tokenizer, prm = pair
    questions = ["Start with 12. Add 5, multiply by 2, subtract 9. What is the result?", QUESTION]
    settings = {"n": 6, "max_new_tokens": 150, "temperature": 1.2}
    cached = function(policy, tokenizer, prm, questions, **settings)

    def naive_score(pairs):
        scores = []
        for problem, solution in pairs:
            steps = [step for step in solution.split("\n\n") if step.strip()]
            scores.append(naive.full_score(prm, problem, steps)[-1])
        return scores

    monkeypatch.setattr(sys.modules[function.__module__], "sample_steps", naive.sample_steps)
    plain = function(policy, tokenizer, Scorer(naive_score), questions, **settings)
    for found, expected in zip(cached, plain):
        assert [one.tokens for one in found] == [one.tokens for one in expected]
        for a, b in zip(found, expected):
            assert a.scores == pytest.approx(b.scores, abs=1e-4)


def test_the_benchmark_of_the_caches_finds_one_tree_both_ways(pair):
    """bench_search.py's other way: stock generate() on whole texts, and a PRM that reads anew."""
    import bench_search

    policy, tokenizer, prm = pair
    meters = {"policy": bench_search.Meter(policy), "prm": bench_search.Meter(prm.model)}
    for script in (beam, dvts):
        case = script, bench_search.QUESTION, policy, tokenizer, prm, meters, 4
        fast, plain = [bench_search.measure(way, *case) for way in ("fast", "plain")]
        assert fast["tree"] == plain["tree"] and len(fast["tree"]) > 0
        assert 2 * fast["policy"] < plain["policy"]

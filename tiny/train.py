"""Train the bundled pair from nothing: a policy that is right about half of the time, and a PRM
that can tell.

    python -m tiny.train                 # writes tiny/policy, tiny/prm and tiny/problems.jsonl

Five stages, each with its own seed and a fixed number of steps (arithmetic is learned abruptly, so
a training stopped by the clock would give another model each time):

1. tokenizer   byte-level BPE on the task's own text.
2. policy      a 4-layer Llama learns to write solutions, and is stopped while it still errs.
3. solver      the policy, trained on until it hardly errs. Not kept: it is what the PRM grows from,
               because a verifier must know the arithmetic better than the policy it judges.
4. rollouts    solutions sampled from the policy; the task's checker labels their steps.
5. PRM         the solver with two more layers learns to answer "+" or "-" to each step, in the
               dialogue format of RLHFlow's reward models. Three further losses break the plateau
               (held-out AUC .73) on which the labels alone get stuck: language modelling of the
               right steps, and two heads, dropped after training, which must say at every token up
               to the first wrong one "is this token wrong?" and "what should stand here?".
"""

import argparse
import json
import random
import time
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from tqdm import trange
from transformers import LlamaConfig, LlamaForCausalLM

from common import chat
from common.families.rlhflow import fixed_text
from tiny import task
from tiny.tokenizer import build_tokenizer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IGNORE = -100  # cross_entropy passes over these targets

POLICY = dict(steps=880, batch=12, drills=0.4, learning_rate=4e-3, decay=0.4)
SOLVER = dict(steps=2300, batch=16, drills=0.5, learning_rate=4e-3, decay=0.4)
PRM = dict(steps=1500, batch=32, drills=0.05, learning_rate=3e-3, decay=0.6)
ROLLOUTS = 1600  # problems, four solutions each
TEST_PROBLEMS = 500


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument(
        "--shrink", type=int, default=1, help="divide all step counts by this, to try the code"
    )
    args = parser.parse_args()
    torch.set_num_threads(
        1
    )  # for models this small more threads cost more than they bring, and results would differ
    start = time.time()

    test = test_problems(args.seed)
    write_problems(test, args.out / "problems.jsonl")
    held_out = {problem.text for problem in test}
    tokenizer = build_tokenizer(args.seed)

    torch.manual_seed(args.seed)
    policy = build_model(tokenizer, layers=4)
    train_writer("policy", policy, tokenizer, held_out, args, **POLICY)
    save(policy, tokenizer, args.out / "policy")

    solver = grow(policy, extra_layers=0)
    train_writer("solver", solver, tokenizer, held_out, args, **SOLVER)

    torch.manual_seed(args.seed)
    rollouts = sample_rollouts(policy, tokenizer, held_out, args.seed, ROLLOUTS // args.shrink)
    torch.manual_seed(args.seed)
    prm = grow(solver, extra_layers=2)
    train_prm(prm, tokenizer, rollouts, held_out, args, **PRM)
    save(prm, tokenizer, args.out / "prm")
    sizes = f"policy {policy.num_parameters():,} and PRM {prm.num_parameters():,} parameters"
    print(f"{sizes} in {(time.time() - start) / 60:.0f} minutes on {DEVICE}")


# --- data -----------------------------------------------------------------------------------------


def test_problems(seed: int) -> list[task.Problem]:
    """Distinct problems, the five levels in turn while they last: any first K of them are balanced,
    for K up to 210.
    """
    rng, drawn = random.Random(f"test {seed}"), {}
    while len(drawn) < TEST_PROBLEMS:
        problem = task.make_problem(rng, group=1 + len(drawn) % 5)
        drawn.setdefault(problem.text, problem)
    levels = [
        [problem for problem in drawn.values() if problem.level == level]
        for level in sorted(set(task.LEVEL.values()))
    ]
    return [problem for turn in zip_longest(*levels) for problem in turn if problem]


def write_problems(problems, path: Path):
    rows = [
        dict(
            id=f"tiny-{i:03d}",
            problem=p.text,
            answer=task.ways_to_write(p.answer)[0],
            level=p.level,
        )
        for i, p in enumerate(problems)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def training_problem(rng, held_out, **kind) -> task.Problem:
    while True:
        problem = task.make_problem(rng, **kind)
        if problem.text not in held_out:
            return problem


def drill(rng, tokenizer, length=150) -> list[int]:
    """Bare calculations, one a line: many sums for few tokens."""
    ids = [tokenizer.bos_token_id]
    while len(ids) < length:
        p = task.make_problem(rng)
        for before, (sign, operand), after in zip(p.values, p.operations, p.values[1:]):
            ids += chat.encode(
                tokenizer,
                f"\n${before}{task.SIGN[sign]}{operand}={rng.choice(task.ways_to_write(after))}$",
            )
    return ids[:length]


def pad(rows: list[list[int]], filler: int) -> torch.Tensor:
    # rows: ragged lists -> [len(rows), longest]
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows], device=DEVICE)


# --- models and optimizers ------------------------------------------------------------------------


def build_model(tokenizer, layers: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 16) * 16,
        hidden_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=384,
        max_position_embeddings=2048,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).to(DEVICE)


def grow(model: LlamaForCausalLM, extra_layers: int) -> LlamaForCausalLM:
    """A copy with more layers on top, which begin as almost the identity."""
    config = LlamaConfig(
        **{
            **model.config.to_dict(),
            "num_hidden_layers": model.config.num_hidden_layers + extra_layers,
        }
    )
    grown = LlamaForCausalLM(config).to(DEVICE)
    grown.load_state_dict(model.state_dict(), strict=False)
    for layer in grown.model.layers[model.config.num_hidden_layers :]:
        torch.nn.init.normal_(layer.self_attn.o_proj.weight, std=1e-3)
        torch.nn.init.normal_(layer.mlp.down_proj.weight, std=1e-3)
    return grown


def save(model, tokenizer, folder: Path):
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model.float()


def optimizers(parameters: list, learning_rate: float) -> list:
    """Muon for the matrices, AdamW for the embedding and the norms. parameters: (name, tensor)
    pairs.
    """
    matrices = [p for name, p in parameters if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in parameters if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(
            matrices,
            lr=learning_rate,
            momentum=0.95,
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def update(loss, parameters, optims, learning_rate, step, steps, decay):
    """One optimizer step: warm up over 40 steps, constant, then fall to zero over the last share
    `decay`.
    """
    scale = min(1.0, (step + 1) / 40) * min(1.0, (1 - step / steps) / decay)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for _, p in parameters], 1.0)
    for optim in optims:
        for group in optim.param_groups:
            group["lr"] = learning_rate * scale
        optim.step()
        optim.zero_grad(set_to_none=True)


# --- the policy and the solver --------------------------------------------------------------------


def train_writer(
    name, model, tokenizer, held_out, args, *, steps, batch, drills, learning_rate, decay
):
    """Next-token prediction on solutions, and on bare calculations in a share `drills` of the
    batches.
    """
    rng, steps = random.Random(f"{name} {args.seed}"), steps // args.shrink
    parameters = list(model.named_parameters())
    optims = optimizers(parameters, learning_rate)
    bar = trange(steps, desc=name)
    for step in bar:
        rows, targets = [], []
        drilling, group = rng.random() < drills, rng.choice([1, 2, 3, 3, 4, 4, 5, 5])
        for _ in range(batch):
            if drilling:
                prompt, ids = [], drill(rng, tokenizer)
            else:
                problem = training_problem(rng, held_out, group=group)
                prompt = chat.encode_prompt(tokenizer, problem.text)
                ids = chat.encode(tokenizer, "\n\n".join(task.write_solution(rng, problem))) + [
                    tokenizer.eos_token_id
                ]
            rows.append(prompt + ids)
            targets.append([IGNORE] * len(prompt) + ids)
        rows, targets = pad(rows, tokenizer.pad_token_id), pad(targets, IGNORE)[:, 1:]
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            hidden = model.model(rows).last_hidden_state[:, :-1]
            logits = model.lm_head(hidden[targets != IGNORE])
        loss = cross_entropy(logits.float(), targets[targets != IGNORE])
        update(loss, parameters, optims, learning_rate, step, steps, decay)
        if not drilling:
            bar.set_postfix(loss=f"{loss.item():.3f}")


@torch.inference_mode()
def sample_rollouts(policy, tokenizer, held_out, seed, count, batch=64, samples=4) -> dict:
    """Group -> list of (problem, steps) as the policy writes them at temperature 1."""
    rng, rollouts = random.Random(f"rollouts {seed}"), {group: [] for group in task.GROUPS}
    batch = min(batch, max(1, count // 5))
    policy.eval()
    for start in trange(0, count, batch, desc="rollouts"):
        group = 1 + start // batch % 5
        problems = [
            training_problem(rng, held_out, group=group) for _ in range(min(batch, count - start))
        ]
        prompts = [chat.encode_prompt(tokenizer, p.text) for p in problems]
        longest = max(map(len, prompts))
        ids = torch.tensor(
            [[tokenizer.pad_token_id] * (longest - len(p)) + p for p in prompts], device=DEVICE
        )
        sampled = policy.generate(
            ids,
            attention_mask=(ids != tokenizer.pad_token_id).long(),
            do_sample=True,
            top_k=0,
            max_new_tokens=320,
            num_return_sequences=samples,
        )
        for i, text in enumerate(
            tokenizer.batch_decode(sampled[:, longest:], skip_special_tokens=True)
        ):
            rollouts[group].append((problems[i // samples], text.split("\n\n")))
    policy.train()
    return rollouts


# --- the PRM --------------------------------------------------------------------------------------


def train_prm(
    model, tokenizer, rollouts, held_out, args, *, steps, batch, drills, learning_rate, decay
):
    rng, steps = random.Random(f"prm {args.seed}"), steps // args.shrink
    writer = DialogueWriter(tokenizer)
    width = model.config.hidden_size
    wrong_head = torch.nn.Linear(width, 1, device=DEVICE)
    right_token_head = torch.nn.Linear(
        width, width, device=DEVICE
    )  # in front of the (tied) language-model head
    torch.nn.init.zeros_(wrong_head.weight)
    torch.nn.init.eye_(right_token_head.weight)
    heads = torch.nn.ModuleDict(dict(wrong_head=wrong_head, right_token_head=right_token_head))
    parameters = list(model.named_parameters()) + [
        (f"embed {name}", p) for name, p in heads.named_parameters()
    ]  # AdamW
    optims = optimizers(parameters, learning_rate)
    plus_minus = torch.tensor([writer.plus, writer.minus], device=DEVICE)
    bar, accuracy = trange(steps, desc="prm"), 0.5
    for step in bar:
        if rng.random() < drills:
            dialogues = [
                Dialogue(ids := drill(rng, tokenizer), [(1, len(ids))], [], [], [], [])
                for _ in range(batch)
            ]
        else:
            # Single calculations at first, then ever more chains: what is wrong is learned where it
            # is plain to see.
            short = rng.random() < max(0.15, 0.8 - 1.3 * step / steps)
            group = 1 if short else rng.choice([2, 3, 4, 5, 5])
            dialogues = []
            for _ in range(batch):
                if not short and rng.random() < 0.4:
                    problem, solution = rng.choice(rollouts[group])
                else:
                    problem = training_problem(
                        rng, held_out, group=group, length=1 if short else None
                    )
                    solution = (
                        task.write_solution(rng, problem)
                        if rng.random() < 0.4
                        else corrupt(rng, problem)
                    )
                dialogues.append(writer.write(problem, solution))

        rows = pad([d.ids for d in dialogues], tokenizer.pad_token_id)
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            hidden = model.model(rows).last_hidden_state
            # Language modelling of the right steps: hidden[t - 1] predicts token t.
            at = gather_at(
                [[(t - 1) for a, b in d.right_spans for t in range(a, b)] for d in dialogues]
            )
            language = model.lm_head(hidden[at])
        loss = 0.5 * cross_entropy(language.float(), rows[at[0], at[1] + 1])
        at = gather_at([d.verdict_at for d in dialogues])
        if len(at[0]):
            labels = torch.tensor(
                [label for d in dialogues for label in d.verdicts], device=DEVICE
            )  # 0 right, 1 wrong
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                verdict = model.lm_head(hidden[at]).float()
            # Weight on the whole vocabulary too, lightly: the verdict must be what the model would
            # really write.
            loss = (
                loss
                + cross_entropy(verdict[:, plus_minus], labels)
                + 0.1 * cross_entropy(verdict, plus_minus[labels])
            )

            at = gather_at([d.token_at for d in dialogues])
            is_wrong = torch.tensor([w for d in dialogues for w in d.token_wrong], device=DEVICE)
            right_token = torch.tensor([t for d in dialogues for t in d.token_right], device=DEVICE)
            tokens = hidden[at].float()
            # One wrong token stands against dozens of right ones, hence its weight of 8.
            loss = loss + binary_cross_entropy_with_logits(
                wrong_head(tokens)[:, 0], is_wrong, pos_weight=torch.tensor(8.0, device=DEVICE)
            )
            some = (is_wrong > 0) | (torch.rand(len(is_wrong), device=DEVICE) < 0.15)
            loss = loss + 0.5 * cross_entropy(
                model.lm_head(right_token_head(tokens[some])), right_token[some]
            )
            accuracy += 0.02 * (
                (verdict[:, plus_minus].argmax(1) == labels).float().mean().item() - accuracy
            )
        update(loss, parameters, optims, learning_rate, step, steps, decay)
        bar.set_postfix(loss=f"{loss.item():.3f}", step_accuracy=f"{accuracy:.3f}")


def gather_at(positions: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Index pair (row, position) for a ragged list of positions a row."""
    rows = [i for i, row in enumerate(positions) for _ in row]
    return torch.tensor(rows, device=DEVICE, dtype=torch.long), torch.tensor(
        [t for row in positions for t in row], device=DEVICE, dtype=torch.long
    )


class Dialogue:
    def __init__(
        self, ids, right_spans, verdict_at, verdicts, token_at, token_wrong, token_right=()
    ):
        self.ids = ids  # the dialogue, every reply "+" as it is when steps are scored
        self.right_spans = right_spans  # [start, end) of each right step's tokens
        self.verdict_at, self.verdicts = (
            verdict_at,
            verdicts,
        )  # where "+" or "-" is predicted, and 0 or 1 for it
        self.token_at, self.token_wrong, self.token_right = (
            token_at,
            token_wrong,
            token_right,
        )  # up to the first wrong token


class DialogueWriter:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.opening, self.reply, self.next_turn = fixed_text(tokenizer)
        self.reply_length = len(chat.encode(tokenizer, self.reply))
        (self.plus,), (self.minus,) = chat.encode(tokenizer, "+"), chat.encode(tokenizer, "-")

    def write(self, problem: task.Problem, solution: list[str]) -> Dialogue:
        d = Dialogue([], [], [], [], [], [], [])
        labels = task.label_steps(problem, solution)
        for i, (step, right) in enumerate(zip(solution, labels)):
            before, lead = (self.opening + problem.text, " ") if i == 0 else (self.next_turn, "")
            d.ids += chat.encode(self.tokenizer, before + lead + step.strip() + self.reply)
            tokens = chat.encode(self.tokenizer, lead + step.strip())
            end = len(d.ids) - self.reply_length
            start = end - len(tokens)
            d.verdict_at.append(len(d.ids) - 1)
            d.verdicts.append(0 if right else 1)
            if right:
                d.right_spans.append((start, end))
                self.mark(d, start, tokens, 0.0, tokens)
            elif i == labels.index(False):
                self.mark_first_wrong_token(d, problem, i, lead, start, tokens)
        return d

    def mark_first_wrong_token(self, d, problem, index, lead, start, tokens):
        """Of all right ways to write this step, the one that agrees longest with what was written
        shows the error.
        """
        ways = task.right_steps(problem, index) if index <= len(problem.operations) else [""]
        ways = [
            chat.encode(self.tokenizer, lead + way) + [self.tokenizer.eos_token_id] for way in ways
        ]
        closest = max(ways, key=lambda way: agreement(tokens, way))
        wrong = agreement(tokens, closest)
        self.mark(d, start, tokens[:wrong], 0.0, tokens[:wrong])
        if wrong < len(tokens):
            self.mark(
                d, start + wrong, [tokens[wrong]], 1.0, [closest[min(wrong, len(closest) - 1)]]
            )

    def mark(self, d, start, tokens, wrong, right):
        d.token_at += range(start, start + len(tokens))
        d.token_wrong += [wrong] * len(tokens)
        d.token_right += right


def agreement(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def corrupt(rng, problem: task.Problem) -> list[str]:
    """A solution with an error or two in it, whose later steps calculate rightly from the wrong
    number.

    Its labels are the checker's: now and then the error is none, where an operation was replaced by
    its like.
    """
    last = len(problem.operations) - 1
    bad = {rng.randint(0, last)}
    if rng.random() < 0.3:
        bad.add(rng.randint(0, last))
    if rng.random() < 0.06:
        bad = {last + 1}  # all is right but the answer stated
    value, steps = problem.values[0], []
    for i, (sign, operand) in enumerate(problem.operations):
        before, kind = value, rng.random()
        if i in bad and kind < 0.10:
            before = perturb(rng, value)
        elif i in bad and kind < 0.18:
            operand = max(2, int(perturb(rng, Fraction(operand))))
        elif i in bad and kind < 0.24:
            sign, operand = rng.choice(problem.operations)
        value = max(task.calculate(before, sign, operand), Fraction(0))
        if i < last or (value.denominator not in (1, 2, 4, 5, 8)):
            value = Fraction(value.numerator // value.denominator)
        if i in bad and kind >= 0.24:
            value = perturb(rng, value)
        written = rng.choice(task.ways_to_write(value))
        steps.append(task.write_step(i + 1, str(before), sign, operand, written))
    if last + 1 in bad:
        written = rng.choice(task.ways_to_write(perturb(rng, value)))
    return steps + [task.write_answer(written)]


def perturb(rng, value: Fraction) -> Fraction:
    """A different number, wrong in one of the ways in which models err: by a little, in one digit,
    in the tens.
    """
    kind, n, d = rng.random(), value.numerator, value.denominator
    if d > 1 and kind < 0.25:
        other = Fraction(n, rng.choice([2, 4, 5, 8]))
    elif d > 1 and kind < 0.50:
        other = value + rng.choice(
            [Fraction(1, d), Fraction(-1, d), 1, -1, Fraction(1, 4), Fraction(1, 2), 10]
        )
    else:
        way = rng.random()
        if way < 0.35:
            n += rng.choice([-1, 1, -2, 2])
        elif way < 0.65:
            n += rng.choice([-10, 10, -20, 20])
        elif way < 0.80:
            n += rng.randint(-30, 30)
        else:
            digits = list(str(n))
            digits[rng.randrange(len(digits))] = str(rng.randint(0, 9))
            n = int("".join(digits))
        other = Fraction(n, d)
    return other if other > 0 and other != value else value + 1


if __name__ == "__main__":
    main()

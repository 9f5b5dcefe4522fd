"""Teach openvla-mini to answer where things are, before it learns to act.

    python scripts/mini/ground.py WARM PICTURES OUT [--steps N] [--seed N]

OpenVLA starts from a vision-language model that was trained to answer questions about pictures. Here the questions are
"In: Where is the red cube? Out:", answered with three of the action ids, where the thing is from the gripper in x, y
and z, and OpenVLA's own "What action should the robot take to pick up the red cube?", answered with what the expert
would do first. There is one for each thing in the picture, one behind the other in one sequence.

Shapes: B batch, L text length, N patches, S whole sequence, D model width, H heads.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import numpy as np
import torch
from loop import Losses, Schedule, arguments, fit, words
from pictures import COLOURS, LIMITS, NOUNS, PATCHES, REACH, Pictures, load
from pixelvla_openvla import OpenVLA
from pixelvla_openvla.openvla import IGNORE, pad
from pixelvla_openvla.processing import prompt_text
from pixelvla_tabletop.language import instruction
from tokenizers import Tokenizer
from torch import Tensor, nn
from warm_up import SEEN, pixels

ACT = 0.6
"""Share of the questions that ask for an action."""

LOOK_LAYER, LOOK_HEADS = 2, 2
"""These heads are told where to look: which words belong to which patch is the hardest thing to find out alone."""

COLOUR_NAMES = list(COLOURS)


@dataclass
class Asked:
    """Questions about one picture, one behind the other.

    Attributes:
        ids, labels: the sequence, BOS first; IGNORE where nothing is to be answered.
        things: which thing an answer's token is about; -1 at the others.
    """

    ids: list[int]
    labels: list[int]
    things: list[int]


def told(data: Pictures, row: int, thing: int, rng: np.random.Generator) -> str:
    """An instruction about a thing; what to do first is the same for every task that begins with grasping it."""
    name = name_of(data, row, thing)
    objects = np.flatnonzero(data.things[row, :, 0] >= 0)
    others = [name_of(data, row, other) for other in objects if other != thing]
    tasks = ("open_drawer", "close_drawer") if name == "drawer" else ("pick", "move_near" if others else "pick")
    task = str(rng.choice(tasks))
    reference = str(rng.choice(others)) if task == "move_near" else None
    return instruction(task, int(rng.integers(1000)), name, reference)


def name_of(data: Pictures, row: int, thing: int) -> str:
    """What a thing is called in instructions."""
    colour, noun, _ = data.things[row, thing]
    return "drawer" if colour < 0 else f"{COLOUR_NAMES[colour]} {NOUNS[noun]}"


class Questions(nn.Module):
    """Questions and answers about pictures as ids.

    The towers, the projector and the embeddings rest, so that words and patches stay as warm_up.py aligned them:
    trained along, they lose it within minutes. What the language model sees is therefore made once.
    """

    def __init__(self, model: OpenVLA, tokenizer: Tokenizer, data: Pictures) -> None:
        super().__init__()
        object.__setattr__(self, "model", model)
        self.tokenizer, self.data = tokenizer, data
        self.places = model.actions.encode(np.nan_to_num(data.away / REACH))
        self.actions = model.actions.encode(np.nan_to_num(data.actions / LIMITS))
        self.read = nn.Linear(len(model.embed(torch.tensor(0))), 3 + len(LIMITS))
        self.colours, self.nouns = (
            torch.tensor([tokenizer.token_to_id(word) for word in words]) for words in (COLOUR_NAMES, NOUNS)
        )
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.patches = see(model, data.images)

    def ask(self, row: int, rng: np.random.Generator) -> Asked:
        """A question about everything in one picture, in random order."""
        asked = Asked([int(self.model.config.text["bos_token_id"])], [IGNORE], [-1])
        for thing in rng.permutation(np.flatnonzero(~np.isnan(self.data.away[row, :, 0]))):
            text, answer = self._act(row, thing, rng) if rng.random() < ACT else self._where(row, thing)
            question = [*self.tokenizer.encode(text).ids, self.model.config.empty_token_id]
            asked.ids += [*question, *answer.tolist()]
            asked.labels += [*[IGNORE] * len(question), *answer.tolist()]
            asked.things += [*[-1] * (len(question) - 1), *[int(thing)] * len(answer), -1]
        return asked

    def _where(self, row: int, thing: int) -> tuple[str, np.ndarray]:
        return f"In: Where is the {name_of(self.data, row, thing)}?\nOut:", self.places[row, thing]

    def _act(self, row: int, thing: int, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        return prompt_text(told(self.data, row, thing, rng))[0], self.actions[row, thing]

    def losses(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[Losses, Losses]:
        """What to make small, and a figure for the log."""
        asked = [self.ask(row, rng) for row in rows]
        model = self.model
        ids_BL = pad([one.ids for one in asked], model.config.pad_token_id)
        things_BL = pad([one.things for one in asked], -1)
        labels_BL = pad([one.labels for one in asked], IGNORE)[:, 1:]
        patches_BND = self.patches[rows].float()
        text_BLD = model.embed(ids_BL)
        # Padding stands on the right and attention is causal, so no mask is needed.
        tokens_BSD = torch.cat([text_BLD[:, :1], patches_BND, text_BLD[:, 1:]], 1)
        llm = model.language_model
        out = llm.model(inputs_embeds=tokens_BSD, use_cache=False, output_attentions=True, output_hidden_states=True)
        wanted_BL = labels_BL != IGNORE
        before = slice(-labels_BL.shape[1] - 1, -1)
        logits, labels = llm.lm_head(out.last_hidden_state[:, before][wanted_BL]), labels_BL[wanted_BL]
        losses = {
            "answer": self._answer(logits, labels),
            "name": self._named(out.hidden_states[LOOK_LAYER][:, before], rows, things_BL[:, :-1]),
            "look": self._look(out.attentions[LOOK_LAYER][:, :LOOK_HEADS], rows, things_BL),
            "know": self._know(out.hidden_states[LOOK_LAYER + 1][:, before], rows, things_BL[:, :-1]),
        }
        right = (logits.argmax(-1) - labels).abs() <= 2
        return losses, {"within 2 ids": right.float().mean()}

    def _answer(self, logits_TV: Tensor, labels_T: Tensor) -> Tensor:
        """Cross entropy with the neighbours of the right id, which mean nearly the same, counting a little."""
        first = self.model.actions.vocab_size - len(self.model.actions.centers)
        log_chance = logits_TV.log_softmax(-1)[:, first : self.model.actions.vocab_size]
        away = torch.arange(log_chance.shape[1]) - (labels_T[:, None] - first)
        return -((-0.5 * away**2).softmax(-1) * log_chance).sum(-1).mean()

    def _named(self, hidden_BLD: Tensor, rows: np.ndarray, things_BL: Tensor) -> Tensor:
        """How badly colour and noun of what is asked for can be read in front of the layer that looks.

        They are read as warm_up.py reads them from the patches, so that both sides of the match mean the same.
        """
        sample, place = (things_BL >= 0).nonzero(as_tuple=True)
        colour, noun = torch.from_numpy(self.data.things[rows][sample, things_BL[sample, place]])[:, :2].unbind(1)
        scores = [
            self.scale.exp() * hidden_BLD[sample, place] @ self.model.embed(ids).T for ids in (self.colours, self.nouns)
        ]
        cross = nn.functional.cross_entropy
        return cross(scores[0], colour, ignore_index=-1) + cross(scores[1], noun, ignore_index=-1)

    def _know(self, hidden_BLD: Tensor, rows: np.ndarray, things_BL: Tensor) -> Tensor:
        """How badly place and action of the thing that is asked for can be read right behind the layer that looks."""
        sample, place = (things_BL >= 0).nonzero(as_tuple=True)
        known = np.concatenate([self.data.away[rows] / REACH, self.data.actions[rows] / LIMITS], -1)
        true = torch.from_numpy(known[sample, things_BL[sample, place]])
        return nn.functional.smooth_l1_loss(self.read(hidden_BLD[sample, place]), true, beta=0.2)

    def _look(self, attention_BHSS: Tensor, rows: np.ndarray, things_BL: Tensor) -> Tensor:
        """How little some heads look at the patches of the thing that is asked for, from before each answer's token."""
        sample, place = (things_BL >= 0).nonzero(as_tuple=True)
        seen = self.data.share[rows][sample, :, things_BL[sample, place]] > SEEN
        patches = attention_BHSS[sample, :, place + PATCHES, 1 : 1 + PATCHES]  # BOS stands before the patches
        mass = (patches * torch.from_numpy(seen)[:, None]).sum(-1)[torch.from_numpy(seen.any(-1))]
        return -(mass + 1e-6).log().mean()


@torch.no_grad()
def see(model: OpenVLA, images_FHW3: np.ndarray) -> Tensor:
    """The projected patches of every picture, float16[F, N, D]."""
    parts = np.array_split(images_FHW3, max(1, len(images_FHW3) // 128))
    return torch.cat([model.image_tokens(pixels(model, part))[0].half() for part in parts])


def train(model: OpenVLA, questions: Questions, plan: Schedule) -> None:
    """Train the language model; the last 2 % of the pictures are held out and reported at the end."""
    torch.manual_seed(plan.seed)
    model.train()
    embeddings = model.language_model.get_input_embeddings().requires_grad_(False)
    pictures = len(questions.data.images)
    last = pictures - pictures // 50
    fit(questions.losses, (model.language_model, questions), last, plan, every=50)
    embeddings.requires_grad_(True)
    with torch.no_grad():
        small, shown = questions.losses(np.arange(last, pictures)[:256], np.random.default_rng(plan.seed))
        print("held out: ", words(small | shown))


def main() -> None:
    args = arguments(__doc__, steps=2000, batch_size=12, lr=1.5e-3)
    plan = Schedule(args.steps, args.batch_size, args.lr, 0.1, weight_decay=0.01, betas=(0.9, 0.95), seed=args.seed)
    model = OpenVLA.from_pretrained(args.start)
    model.language_model.set_attn_implementation("eager")  # the only one that shows its attention
    questions = Questions(model, Tokenizer.from_file(str(args.start / "tokenizer.json")), load(args.pictures))
    train(model, questions, plan)
    model.save_pretrained(args.out, dtype=torch.float32)
    shutil.copy(args.start / "tokenizer.json", args.out)


if __name__ == "__main__":
    main()

"""What a report says, in order, before it has a form: sentences, tables and definitions.

The Markdown and the HTML page are two renderings of one `Story`, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

from hyperprune.records import CandidateRecord, RunRecord
from hyperprune.report import facts, words
from hyperprune.report.reliance import compared, reliance
from hyperprune.report.table import Table
from hyperprune.report.words import number, percent, plural, times
from hyperprune.spectra import FLOOR


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture ready to be written: `png` for files, `svg` for putting inline into an HTML page."""

    name: str
    title: str
    reading: str
    png: bytes
    svg: str


@dataclass(frozen=True, kw_only=True)
class Story:
    """All the text of a report.

    Attributes:
        notices: what limits the rest (an unfinished run, candidates that learned nothing), shown first.
        tiles: the few numbers that matter most, each with what it counts.
    """

    title: str
    subtitle: str
    headline: str
    notices: tuple[str, ...]
    tiles: tuple[tuple[str, str], ...]
    candidates: Table
    rounds: Table | None
    trust: Table | None
    making: Table
    definitions: tuple[tuple[str, str], ...]


def tell(run: RunRecord) -> Story:
    """Word everything that the report says about a run."""
    strategy = run.strategy.get("name", "not recorded")
    what = f"search · strategy {strategy}" if run.is_search else "training · one model"
    return Story(
        title=f"{run.task}: pruned to {_sparsity(run)} sparsity",
        subtitle=f"Report of a hyperprune {what} · seed {run.seed}",
        headline=_headline(run),
        notices=_notices(run),
        tiles=_tiles(run),
        candidates=_candidates(run),
        rounds=_rounds(run) if run.is_search else None,
        trust=reliance(run),
        making=_making(run),
        definitions=_definitions(run) if run.is_search else _common_words(run),
    )


def _sparsity(run: RunRecord) -> str:
    return "the searched" if run.sparsity is None else percent(run.sparsity)


def _metric_of(candidate: CandidateRecord, run: RunRecord) -> float | None:
    return facts.best_metric(candidate, lower_is_better=run.lower_is_better)


def _headline(run: RunRecord) -> str:
    dense = _metric_of(run.reference, run)
    first = facts.leader(run)
    if first is None:
        subject = "candidate" if run.is_search else "model"
        opening = (
            f"No {subject} was trained to the end" if run.finished else f"No {subject} has been trained yet"
        )
        beside = "" if dense is None else f"; the dense model reaches {run.metric} {number(dense)}"
    else:
        metric = _metric_of(first, run)
        if not run.is_search:
            verb = "reaches" if run.finished else "is at"
        else:
            verb = "wins with" if run.finished else "leads so far with"
        opening = f"{words.name(first)} {verb} validation {run.metric} {number(metric)}"
        beside = f" at {percent(run.sparsity_of(first))} sparsity"
        if run.is_search:
            beside += f"; the dense model reaches {number(dense)}"
        if (share := facts.ratio(metric, dense)) is not None:
            beside += f" (ratio {share:.3f})"
        if run.baseline is not None:
            beside += f", and the {run.baseline[0]}, which needs no learning, is {number(run.baseline[1])}"
            if (share := facts.ratio(metric, run.baseline[1])) is not None:
                beside += f" (ratio {share:.3f})"
    if not run.is_search:
        return f"{opening}{beside}. It was trained for {plural(run.epochs_spent, 'epoch')}."
    cost = f"The search spent {plural(run.epochs_spent, 'epoch')}"
    factor = facts.saving(run)
    if factor is not None:
        full, candidates = plural(run.epochs_full, "epoch"), plural(len(run.candidates), "candidate")
        cost += f"; training all {candidates} to the end takes {full}: {factor:.1f}× as many"
    return f"{opening}{beside}. {cost}."


def _notices(run: RunRecord) -> tuple[str, ...]:
    notices = []
    hopeless, audits = facts.hopeless(run), facts.unfinished_audits(run)
    if hopeless is not None:
        notices.append(f"This run failed: {hopeless}. Begin anew with --overwrite.")
    elif audits:
        notices.append(f"Its audit is not finished ({', '.join(audits)}). The same command goes on.")
    elif not run.finished:
        done = f" ({plural(len(run.rounds), 'round')} done): ranks may still change" if run.is_search else ""
        notices.append(f"This run is not finished{done}. Running the same command again goes on.")
    notices.extend(_learning(run))
    if failed := [c.key for c in run.candidates if c.outcome == "failed"]:
        subject = f"{plural(len(failed), 'candidate')} failed and {'was' if len(failed) == 1 else 'were'}"
        notices.append(f"{subject} left out from then on: {', '.join(failed)}.")
    return tuple(notices)


def _learning(run: RunRecord) -> list[str]:
    if run.baseline is None:
        return ["No baseline is recorded for this task, so whether the models learned is not judged here."]
    name, value = run.baseline
    side = "at most" if run.lower_is_better else "at least"
    limit = words.limit(run, facts.LEARNED, of="of it")
    models = [("dense model", run.reference)] if run.is_search else []
    if (first := facts.leader(run)) is not None:
        models.append((f"{facts.role(run)} {first.key}", first))
    if not models:
        return []
    clauses = []
    for who, model in models:
        verdict = facts.learned(model, run)
        share = facts.ratio(_metric_of(model, run), value)
        result = {True: "yes", False: "NO", None: "cannot be said"}[verdict]
        clauses.append(f"{who}: {result}" + ("" if share is None else f" ({times(share)})"))
    sentences = [f"Clearly better than the {name} of {number(value)} ({side} {limit})? {'; '.join(clauses)}."]
    if stuck := [c.key for c in run.candidates if facts.at_baseline(c, run)]:
        subject = f"{plural(len(stuck), 'candidate')} of {len(run.candidates)} stayed at the baseline"
        sentences.append(f"{subject} (flagged in the table): {', '.join(stuck)}.")
    sentences += _ranked_too_early(run)
    return sentences


def _ranked_too_early(run: RunRecord) -> list[str]:
    """A warning, where most candidates had learned nothing yet when the first of them were dropped."""
    if run.baseline is None or not run.rounds:
        return []
    first, unlearned = run.rounds[0], facts.unlearned_when_ranked(run)
    if 2 * len(unlearned) <= len(first.signals):
        return []
    return [
        f"When they were first ranked, after {plural(first.epoch, 'epoch')}, {len(unlearned)} of "
        f"{plural(len(first.signals), 'candidate')} were no better than the {run.baseline[0]} yet. A "
        "validation loss tells little of such candidates; the training losses so far and spectra tell more "
        "(docs/evidence.md), and --first-epochs ranks later."
    ]


def _tiles(run: RunRecord) -> tuple[tuple[str, str], ...]:
    first = facts.leader(run)
    shown = [] if first is None else [(number(_metric_of(first, run)), f"{run.metric}, {first.key}")]
    if run.is_search:
        shown.append((number(_metric_of(run.reference, run)), f"{run.metric}, dense model"))
    if run.baseline is not None:
        shown.append((number(run.baseline[1]), run.baseline[0]))
    pruned = run.sparsity if first is None else run.sparsity_of(first)
    shown.append((words.NOTHING if pruned is None else percent(pruned), "sparsity"))
    factor = facts.saving(run) if run.is_search else None
    epochs = f"epochs {'spent' if run.is_search else 'trained'} of {run.epochs_full:,}"
    shown.append((f"{run.epochs_spent:,}", epochs if factor is None else f"{epochs} ({factor:.1f}× fewer)"))
    return tuple(shown)


def _candidates(run: RunRecord) -> Table:
    best = facts.leader(run)
    audits = facts.audited(run)
    rows = [_candidate_row("", run.reference, run, "reference")] if run.is_search else []
    marks = ["dense"] if run.is_search else []
    for rank, candidate in enumerate(run.candidates, start=1):
        audited = ", audited" if candidate.key in audits else ""
        rows.append(_candidate_row(str(rank), candidate, run, words.outcome(candidate) + audited))
        marks.append("winner" if candidate is best else candidate.outcome)
    better = "Lower" if run.lower_is_better else "Higher"
    intro = f"{better} {run.metric} is better."
    if run.is_search:
        intro = (
            f"In rank order: finalists by {run.metric}, then the eliminated, those dropped at the latest "
            f"epoch first, each by signal, then the failed ones. {better} {run.metric} is better; a smaller "
            "signal is better. The signal is the one of the last round that the candidate took part in."
        )
    if run.sparsity is None:
        intro += (
            " The sparsity is searched: signals, and the metric of finalists in the column “weighed”, are "
            f"worse by the factor 1 + {run.sparsity_weight:g} · density, and ranked so."
        )
    if run.baseline is not None:
        limit = words.limit(run, facts.AT_BASELINE, of=f"of the {run.baseline[0]}")
        intro += f" “at baseline”: even the best epoch is not beyond {limit}."
    return Table(
        title="Candidates" if run.is_search else "The model",
        intro=intro,
        header=(
            "rank",
            "key",
            "label",
            "outcome",
            "epochs",
            "signal",
            f"last {run.metric}",
            f"best {run.metric}",
            "flag",
            *(("sparsity", "weighed") if run.sparsity is None else ()),
        ),
        rows=tuple(rows),
        numeric=(0, 4, 5, 6, 7, 9, 10) if run.sparsity is None else (0, 4, 5, 6, 7),
        marks=tuple(marks),
    )


def _candidate_row(rank: str, candidate: CandidateRecord, run: RunRecord, outcome: str) -> tuple[str, ...]:
    return (
        rank,
        candidate.key,
        candidate.label,
        outcome,
        f"{facts.epochs_trained(candidate):,}",
        number(facts.last_signal(candidate)),
        number(facts.last_metric(candidate)),
        number(_metric_of(candidate, run)),
        "at baseline" if facts.at_baseline(candidate, run) else "",
        *(
            (percent(run.sparsity_of(candidate)), number(run.score(candidate)))
            if run.sparsity is None
            else ()
        ),
    )


def _rounds(run: RunRecord) -> Table:
    rows = tuple(
        (
            str(part.number),
            str(part.epoch),
            str(len(part.signals)),
            str(len(part.kept)),
            ", ".join(part.kept) or words.NOTHING,
            ", ".join(part.inserted) or words.NOTHING,
        )
        for part in run.rounds
    )
    intro = "After so many epochs the entrants were ranked by signal; the best were kept, new ones inserted."
    return Table(
        title="Rounds",
        intro=intro if rows else "No elimination has taken place.",
        header=("round", "epoch", "entered", "kept", "kept, best first", "inserted"),
        rows=rows,
        numeric=(0, 1, 2, 3),
    )


def _making(run: RunRecord) -> Table:
    rows = [
        ("task", run.task),
        (
            "sparsity",
            f"searched, with weight {run.sparsity_weight:g}"
            if run.sparsity is None
            else percent(run.sparsity),
        ),
        ("seed", str(run.seed)),
        *((f"strategy: {key}", str(value)) for key, value in run.strategy.items()),
        *(
            [
                (
                    "epochs of the dense reference",
                    f"{facts.epochs_trained(run.reference):,} (not among the epochs spent)",
                )
            ]
            if run.is_search
            else []
        ),
        *((str(key), str(value)) for key, value in run.provenance.items()),
    ]
    if run.audited:
        rows.insert(
            -len(run.provenance) or len(rows),
            (
                "epochs of the audit",
                f"{run.epochs_audit:,} of {len(run.audited)} candidates (not among the epochs spent)",
            ),
        )
    return Table(title="How this run was made", intro="", header=("what", "value"), rows=tuple(rows))


_SIGNALS = {
    "spectrum": "the distance of a candidate from the dense model in LS space at the round's epoch",
    "spectrum_joint": "the distance from the dense model in one LS space of all networks of the round",
    "spectrum_raw": "the distance between a candidate's spectrum and the dense model's, without an LS space",
    "mean_exponent": "minus the mean of a candidate's Lyapunov exponents at the round's epoch",
    "loss": "a candidate's validation loss at the round's epoch",
    "training_losses": "the sum of a candidate's training losses up to the round's epoch",
    "last_training_loss": "a candidate's training loss in the round's epoch",
    "blend": "the mean of a candidate's ranks by spectrum distance and by validation loss in the round",
}


def _common_words(run: RunRecord) -> tuple[tuple[str, str], ...]:
    states = {"full": "hidden and cell states"}
    state = states.get(run.strategy.get("spectrum_state", ""), "hidden state")
    return (
        (
            "Sparsity",
            "The share of the prunable weights that is zero and stays out of the computation.",
        ),
        (
            "Lyapunov spectrum (LS)",
            f"One exponent per dimension of the network's {state}: the average rate, in nats per time "
            "step, at which a tiny difference in that direction grows (positive) or fades (negative) while "
            "the network reads its input. It says how far and how evenly the network carries information "
            "through time. −∞ means that a direction is forgotten within one step, as when nothing listens "
            "to a unit any more.",
        ),
        (
            "LS space",
            "A plane in which each network at each epoch is one point: the two directions along which the "
            "spectra in this run differ most (principal components). Near points are networks with similar "
            f"spectra. Exponents below {FLOOR:g}, −∞ included, count as {FLOOR:g}.",
        ),
    )


def _definitions(run: RunRecord) -> tuple[tuple[str, str], ...]:
    signal = str(run.strategy.get("signal", ""))
    measure = _SIGNALS.get(signal, "the number by which candidates were ranked at the round's epoch")
    if signal == "spectrum":
        dims = run.strategy.get("spectrum_dims") or 2
        those = "that" if dims == 1 else "those"
        measure += (
            f": of {plural(dims, 'dimension')}, {those} along which the spectra of these two networks differ "
            "most"
        )
    kind = f" In this run ({signal}): " if signal else " In this run: "
    others = "".join(f" For comparison, {name}: {_SIGNALS[name]}." for name in compared(run))
    return (
        *_common_words(run),
        ("Signal", f"What candidates are ranked by in a round; smaller is better.{kind}{measure}.{others}"),
        (
            "Epochs spent",
            "Epochs trained by all candidates together, later ones catching up included; those of the dense "
            "model and of an audit are not counted.",
        ),
    )

/**
 * On-policy distillation (OPD: GR2 TR, Diffusion-GR2), in place of RL: the student answers, a frozen teacher scores
 * every token of the student's own answers, and the student moves toward the teacher. No reward, no true item.
 *
 *   surrogate    A_t = log p_teacher(t) - log p_student(t), clipped to ± advantageCap: on average the negative reverse
 *                KL; loss = the clipped surrogate with A_t per token, + anchor x k3(student, teacher)
 *   forward-kl   loss = KL(teacher || student) at every token, over the teacher's topK alternatives and all others as
 *                one (losses.py). At a choice among whole sequences the alternatives are the remaining candidates.
 *
 * Finding and loading the teacher: opd-teacher.ts.
 */
import { adamW } from "../../config/schema/training.ts";
import type { Config } from "../../config/schema.ts";
import { RunError, WorkerError } from "../../core/errors.ts";
import { deriveSeed, Rng } from "../../core/rng.ts";
import type { Policy, Rollout, SlateInput } from "../../policy/policy.ts";
import type { Slate } from "../../prerank/types.ts";
import { type PromptMode, promptModes } from "../../prompts/rerank.ts";
import { learningRateAt } from "../../rl/groups.ts";
import type { ForwardRequest, ForwardResult, Loss } from "../../worker/types.ts";
import type { Algorithm, Setup, Step } from "./algorithm.ts";
import { openTeacher } from "./opd-teacher.ts";

/** The quantity that each loss reduces, as named in metrics and progress. */
const measures = {
  surrogate: { name: "reverseKl", title: "reverse KL" },
  "forward-kl": { name: "forwardKl", title: "forward KL" },
} as const;

/** Above this share of the teacher's mass outside its alternatives, a step prints a warning: little is learned then. */
const largeRest = 0.2;

export async function openOpd({ context, worker, model, policy, slates, toSlateInput }: Setup): Promise<Algorithm> {
  const { config, signal } = context;
  const o = config.rl;
  const measure = measures[o.opd.loss];
  if (slates.length === 0)
    throw new RunError("no slates are left for distillation: SFT uses all users", { advice: "Lower sft.userShare." });
  const teacher = await openTeacher(context, worker, model.lineage);
  return { pool: slates, step, close: () => teacher.close() };

  async function step(step: number): Promise<Step> {
    const drawn = Rng.of(config.seed, "opd-slates", step)
      .shuffle([...slates])
      .slice(0, o.prompts);
    const { values, messages } = await update(await answer(drawn, step), step);
    const kl = values[measure.name] ?? 0;
    return { values, messages, note: `${measure.title} ${kl.toFixed(4)}`, summary: { [measure.name]: kl } };
  }

  /** The student's answers, by mode. */
  async function answer(drawn: readonly Slate[], step: number): Promise<ReadonlyMap<PromptMode, Answered>> {
    const rng = Rng.of(config.seed, "opd-mode", step);
    const drawnModes = drawn.map((): PromptMode => (rng.uniform() < o.thinkShare ? "think" : "answer"));
    const out = new Map<PromptMode, Answered>();
    for (const mode of promptModes) {
      const views = drawn.filter((_, i) => drawnModes[i] === mode).map(toSlateInput);
      if (views.length === 0) continue;
      const seed = deriveSeed(config.seed, "opd", step, mode);
      const rollouts = await policy.sample(views, { mode, group: o.group, temperature: o.temperature, seed, signal });
      out.set(mode, { views, rollouts });
    }
    return out;
  }

  /** One optimizer step; the teacher scores every answer once. */
  async function update(
    answered: ReadonlyMap<PromptMode, Answered>,
    step: number,
  ): Promise<{ values: Record<string, number>; messages: string[] }> {
    const tokens = [...answered.values()].reduce((n, a) => n + numTokens(a.rollouts), 0);
    const values: Record<string, number> = { loss: 0, reverseKl: 0 };
    const messages: string[] = [];
    for (const [mode, part] of answered) {
      const request = buildRequest(part, mode, policy, config);
      const student = Float32Array.from(part.rollouts.flatMap((r) => Array.from(r.logprobs)));
      const theirs = await teacher.score(o.opd.loss === "forward-kl" ? { ...request, topK: o.opd.topK } : request);
      const gap = student.map((s, t) => (theirs.logprobs[t] as number) - s);
      const result = await worker.forwardBackward(
        {
          ...request,
          weights: new Float32Array(student.length).fill(1 / tokens),
          loss: computeLoss(student, theirs, gap, o),
          seed: deriveSeed(config.seed, "opd", "dropout", step),
        },
        { signal },
      );
      const own = -gap.reduce((a, b) => a + b, 0);
      values.loss = (values.loss ?? 0) + result.loss;
      values.reverseKl = (values.reverseKl ?? 0) + own / tokens;
      values[`reverseKl_${mode}`] = own / student.length;
      if (o.opd.loss === "forward-kl") {
        const { forward_kl = 0, teacher_rest = 0 } = result.metrics;
        values.forwardKl = (values.forwardKl ?? 0) + (forward_kl * student.length) / tokens;
        values[`forwardKl_${mode}`] = forward_kl;
        values[`teacherRest_${mode}`] = teacher_rest; // its mass outside the topK, per token
        if (step === 0 && teacher_rest > largeRest)
          messages.push(
            `! ${(100 * teacher_rest).toFixed(0)} % of the teacher's mass is outside ` +
              `its ${o.opd.topK} most likely alternatives (${mode}); raise rl.opd.topK`,
          );
      }
    }
    const learningRate = learningRateAt(step, o.steps, o);
    const { gradNorm } = await worker.optimStep(
      { ...adamW, learningRate, weightDecay: o.weightDecay, maxGradNorm: o.maxGradNorm },
      { signal },
    );
    return { values: { ...values, gradNorm, learningRate, tokens }, messages };
  }
}

/** Slates and their answers, one group of answers per slate. */
interface Answered {
  readonly views: readonly SlateInput[];
  readonly rollouts: readonly Rollout[];
}

const numTokens = (rollouts: readonly Rollout[]): number => rollouts.reduce((n, r) => n + r.tokens.length, 0);

/** @param gap log p_teacher - log p_student for every token of the student */
function computeLoss(student: Float32Array, theirs: ForwardResult, gap: Float32Array, o: Config["rl"]): Loss {
  const { advantageCap, anchor, loss } = o.opd;
  if (loss === "forward-kl") {
    if (!theirs.top) throw new WorkerError("the teacher's worker returned no alternatives", { retryable: false });
    return { kind: "distill", teacher: theirs.top };
  }
  return {
    kind: "policy",
    advantages: gap.map((g) => Math.max(-advantageCap, Math.min(advantageCap, g))),
    oldLogprobs: student,
    ...(anchor > 0 ? { referenceLogprobs: theirs.logprobs, klCoef: anchor } : {}),
    clipLow: o.clipLow,
    clipHigh: o.clipHigh,
  };
}

/** Both models score the answers under the constraint and the temperature with which they were sampled. */
function buildRequest({ views, rollouts }: Answered, mode: PromptMode, policy: Policy, config: Config): ForwardRequest {
  const { group, temperature } = config.rl;
  const constraint = policy.constraint(views, mode);
  return {
    batch: {
      groups: views.map((_, p) => {
        const own = rollouts.slice(p * group, (p + 1) * group);
        return { prompt: (own[0] as Rollout).prompt, responses: own.map((r) => r.tokens) };
      }),
    },
    ...(constraint ? { constraint } : {}),
    temperature,
    microBatchTokens: config.runtime.microBatchTokens,
  };
}

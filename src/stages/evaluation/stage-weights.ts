/** The weights of a stage for the evaluation: its own, and those refitted for each segment (refit.ts). */
import { refitDir, stateDir, tokenizerFile } from "../../artifacts/weights.ts";
import type { LanguageModelStage } from "../../eval/systems.ts";
import { type LanguageModel, openLanguageModel } from "../../models/language-model.ts";
import type { Asked } from "./asked.ts";
import { refit, type Through } from "./refit.ts";

export class StageWeights {
  readonly stage: LanguageModelStage;
  private readonly asked: Asked;
  private readonly refitted: Readonly<Record<Through, string>>;
  private readonly done = new Set<Through>();

  constructor(stage: LanguageModelStage, asked: Asked) {
    const { context } = asked;
    this.stage = stage;
    this.asked = asked;
    this.refitted = {
      rerank: context.work(`refit-${stage}`),
      validation: refitDir(context.dir, stage),
    };
  }

  /**
   * Loads weights; trains them first if they do not exist yet.
   * @param through last segment that direct mode's weights have seen; without refitting, the stage's own
   */
  async open(through: "own" | Through): Promise<LanguageModel> {
    const { config } = this.asked.context;
    if (through === "own" || !config.refit || config.midtrain.refit.epochs === 0)
      return this.load(this.stage === "base" ? undefined : stateDir(this.asked.context.inputDir(this.stage)));
    const path = this.refitted[through];
    if (!this.done.has(through)) {
      const model = await this.open(through === "validation" ? "rerank" : "own");
      await refit(this.stage, through, this.asked, model, path);
      this.done.add(through);
    }
    return this.load(path);
  }

  private load(path: string | undefined): Promise<LanguageModel> {
    const { context, corpus } = this.asked;
    return openLanguageModel(context, corpus, path, tokenizerFile(context.inputDir("midtrain")));
  }
}

/**
 * A model's chat template (Jinja), rendered once: the template is applied to a conversation with a placeholder for the
 * question, and what it writes before and after the placeholder is kept. The question itself never passes through the
 * template, so item text cannot act on it, and the frame is the same for every prompt. The reference is
 * `apply_chat_template` of transformers (tests/golden/chat-templates.json is checked against both).
 */
import { Template } from "@huggingface/jinja";
import { ConfigError } from "../core/errors.ts";
import type { ChatFrame } from "./pieces.ts";

export interface ChatModel {
  /** Jinja source. */
  readonly template: string;
  /** "" if the model has none. */
  readonly bosToken: string;
  readonly eosToken: string;
  /** The spelling of every special token of the vocabulary. */
  readonly specialTokens: readonly string[];
}

export interface ChatMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/**
 * What templates may use besides the messages. No hidden thinking: reasoning is part of the answer, where it is trained
 * and rewarded. A fixed date: templates that print today's would change results overnight.
 */
export const templateSettings = { enable_thinking: false, date_string: "26 Jul 2024" } as const;

/** A conversation as text. Throws ConfigError if the template cannot be read or refuses the messages. */
export function renderChat(
  chat: Pick<ChatModel, "template" | "bosToken" | "eosToken">,
  messages: readonly ChatMessage[],
  addGenerationPrompt: boolean,
): string {
  try {
    return new Template(chat.template).render({
      ...templateSettings,
      messages: messages.map((m) => ({ ...m })),
      bos_token: chat.bosToken,
      eos_token: chat.eosToken,
      add_generation_prompt: addGenerationPrompt,
    });
  } catch (cause) {
    throw new ConfigError(`the model's chat template cannot be applied: ${(cause as Error).message.split("\n")[0]}`, {
      cause,
      advice: "Set prompts.chat=off, or use a checkpoint whose template is complete.",
    });
  }
}

const questionPlaceholder = "GR2QUESTIONPLACE";
const answerPlaceholder = "GR2ANSWERPLACE";

/** Throws ConfigError if the template does not write the user's message exactly once, or nothing ends an answer. */
export function chatFrame(chat: ChatModel): ChatFrame {
  const question = { role: "user", content: questionPlaceholder } as const;
  const parts = renderChat(chat, [question], true).split(questionPlaceholder);
  if (parts.length !== 2)
    throw new ConfigError(`the model's chat template writes the user's message ${parts.length - 1} times, not once`, {
      advice: "Set prompts.chat=off.",
    });
  const whole = renderChat(chat, [question, { role: "assistant", content: answerPlaceholder }], false);
  const after = whole.slice(whole.indexOf(answerPlaceholder) + answerPlaceholder.length).trimStart();
  const ends = chat.specialTokens.filter((token) => token !== "" && after.startsWith(token));
  const end = ends.sort((a, b) => b.length - a.length)[0] ?? chat.eosToken;
  if (end === "")
    throw new ConfigError(
      "nothing ends an answer: the chat template writes no special token, and the model has no EOS",
      {
        advice: "Set prompts.chat=off.",
      },
    );
  return { question: parts[0] as string, answer: parts[1] as string, end };
}

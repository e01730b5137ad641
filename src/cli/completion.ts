/** `gr2 completion bash`: completes commands, options, their choices, stages and runs, read from the program itself. */
import type { Command } from "commander";
import { stageNames } from "../run/stage.ts";

/** Words that may follow a command path. */
interface Words {
  readonly path: string;
  readonly words: readonly string[];
  /** Whether its first argument is a run's name. */
  readonly takesRun: boolean;
}

function listWords(command: Command, path: string): Words[] {
  const children = command.commands;
  const own = command.options.flatMap((o) => [o.long, o.short].filter((flag) => flag !== undefined));
  const [first] = command.registeredArguments;
  return [
    {
      path,
      words: [...children.map((c) => c.name()), ...own, "--help"],
      takesRun: first !== undefined && ["name", "runs"].includes(first.name()),
    },
    ...children.flatMap((c) => listWords(c, `${path} ${c.name()}`)),
  ];
}

/** A function for bash, and for zsh after `autoload -U +X bashcompinit && bashcompinit`. */
export function bashCompletion(gr2: Command): string {
  const all = listWords(gr2, "");
  const steps = all.filter((w) => w.path !== "").map((w) => `      "${w.path}") path="${w.path}" ;;`);
  const words = all.map((w) => `    "${w.path}") words="${w.words.join(" ")}" ;;`);
  const runs = all.filter((w) => w.takesRun).map((w) => `"${w.path}"`);
  return `# gr2 completion for bash; zsh: autoload -U +X bashcompinit && bashcompinit first
_gr2() {
  local cur=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} path="" words="" root=runs i
  for ((i = 1; i < COMP_CWORD; i++)); do
    [ "\${COMP_WORDS[i]}" = --root ] && root=\${COMP_WORDS[i+1]}
    case "$path \${COMP_WORDS[i]}" in
${steps.join("\n")}
    esac
  done
  case "$before" in
    --from|--until) COMPREPLY=($(compgen -W "${stageNames.join(" ")}" -- "$cur")); return ;;
    -r|--run) COMPREPLY=($(compgen -W "$(ls "$root" 2>/dev/null)" -- "$cur")); return ;;
    -c|--config|-o|--out|--in|--output|--file|-i|--items) COMPREPLY=($(compgen -f -- "$cur")); return ;;
  esac
  case "$path" in
${words.join("\n")}
  esac
  case "$path" in
    ${runs.join("|")}) [[ $cur == -* ]] || words+=" $(ls "$root" 2>/dev/null)" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _gr2 gr2 gr2.mjs
`;
}

/** Shells that can be completed for. */
export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

/** Name of the hidden command that the scripts ask; it answers a line `word<TAB>description` for each. */
export const completionCommand = "__complete";

/** What it answers where the name of a file is due, which shells know best. */
export const filesWord = ":files";

const bash = `# cloudpods completion bash > /etc/bash_completion.d/cloudpods
_cloudpods() {
  local line words=("\${COMP_WORDS[@]:1:COMP_CWORD}")
  COMPREPLY=()
  while IFS=$'\\t' read -r line _; do
    if [[ $line == ${filesWord} ]]; then compopt -o default; else COMPREPLY+=("$line"); fi
  done < <(cloudpods ${completionCommand} -- "\${words[@]}" 2>/dev/null)
}
complete -F _cloudpods cloudpods
`;

const zsh = `#compdef cloudpods
# cloudpods completion zsh > "\${fpath[1]}/_cloudpods"
_cloudpods() {
  local -a found
  local word description
  while IFS=$'\\t' read -r word description; do
    if [[ $word == ${filesWord} ]]; then _files; return; fi
    found+=("\${word//:/\\\\:}:\${description}")
  done < <(cloudpods ${completionCommand} -- "\${(@)words[2,CURRENT]}" 2>/dev/null)
  _describe cloudpods found
}
if [[ "\${funcstack[1]}" == _cloudpods ]]; then _cloudpods "$@"; else compdef _cloudpods cloudpods; fi
`;

const fish = `# cloudpods completion fish > ~/.config/fish/completions/cloudpods.fish
function __cloudpods_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l found (cloudpods ${completionCommand} -- $words[2..-1] 2>/dev/null)
  if test "$found" = "${filesWord}"
    __fish_complete_path (commandline -ct)
  else
    printf '%s\n' $found
  end
end
complete -c cloudpods -f -a '(__cloudpods_complete)'
`;

/** The script that a shell reads. */
export const completionScripts: Readonly<Record<Shell, string>> = { bash, zsh, fish };

// Simple TeX to a tree of MathML elements: [tag, attributes, ...children], a child being a text or a tree.
// Total: what is not known is shown as it was written. Knows nothing of the page.

const GREEK = {
  alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ϵ", varepsilon: "ε", zeta: "ζ", eta: "η", theta: "θ",
  iota: "ι", kappa: "κ", lambda: "λ", mu: "μ", nu: "ν", xi: "ξ", pi: "π", rho: "ρ", sigma: "σ", tau: "τ", phi: "ϕ",
  varphi: "φ", chi: "χ", psi: "ψ", omega: "ω", Gamma: "Γ", Delta: "Δ", Theta: "Θ", Lambda: "Λ", Xi: "Ξ", Pi: "Π",
  Sigma: "Σ", Phi: "Φ", Psi: "Ψ", Omega: "Ω", ell: "ℓ", hbar: "ℏ", infty: "∞", partial: "∂", nabla: "∇",
  emptyset: "∅", degree: "°", circ: "∘", prime: "′", angle: "∠", triangle: "△",
};
const OPERATORS = {
  times: "×", cdot: "⋅", div: "÷", pm: "±", mp: "∓", le: "≤", leq: "≤", ge: "≥", geq: "≥", ne: "≠", neq: "≠",
  approx: "≈", equiv: "≡", sim: "∼", propto: "∝", to: "→", rightarrow: "→", leftarrow: "←", Rightarrow: "⇒",
  Leftarrow: "⇐", Leftrightarrow: "⇔", implies: "⟹", iff: "⟺", mapsto: "↦", in: "∈", notin: "∉", subset: "⊂",
  subseteq: "⊆", cup: "∪", cap: "∩", forall: "∀", exists: "∃", neg: "¬", land: "∧", lor: "∨", ldots: "…", dots: "…",
  cdots: "⋯", mid: "∣", parallel: "∥", perp: "⊥", ast: "∗", star: "⋆", langle: "⟨", rangle: "⟩", lfloor: "⌊",
  rfloor: "⌋", lceil: "⌈", rceil: "⌉", therefore: "∴", because: "∵", "{": "{", "}": "}", "|": "‖", "%": "%", "#": "#",
  "&": "&", _: "_", $: "$",
};
const BIG = { sum: "∑", prod: "∏", int: "∫", oint: "∮", iint: "∬", bigcup: "⋃", bigcap: "⋂" };
const FUNCTIONS = new Set(
  "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp lim max min sup inf det gcd arg dim ker".split(" "),
);
const LIMITS = new Set(["lim", "max", "min", "sup", "inf"]);
const ACCENTS = { hat: "^", bar: "¯", overline: "¯", vec: "→", dot: "˙", ddot: "¨", tilde: "~" };
const SPACES = { ",": "0.17em", ":": "0.22em", ";": "0.28em", "!": "-0.17em", " ": "0.25em", quad: "1em", qquad: "2em" };
const TEXTS = { text: "normal", mathrm: "normal", operatorname: "normal", textbf: "bold", mathbf: "bold", mathit: "italic", boldsymbol: "bold" };
const ENVIRONMENTS = { matrix: ["", ""], pmatrix: ["(", ")"], bmatrix: ["[", "]"], vmatrix: ["|", "|"], cases: ["{", ""], aligned: ["", ""], align: ["", ""], array: ["", ""] };
const IGNORED = new Set(["left", "right", "big", "Big", "bigl", "bigr", "displaystyle", "limits", "nolimits", "nonumber"]);
const TOKEN = /\\(?:[A-Za-z]+\*?|[\s\S])|\d+(?:[.,]\d+)*|\s+|[\s\S]/gu;
const MAX_DEPTH = 40;

/** The <math> tree of a formula. */
export function texToMathml(tex, display = false) {
  const parser = new Tex(tex.match(TOKEN) ?? []);
  const row = parser.row(() => false, 0);
  return ["math", display ? { display: "block" } : {}, ["mrow", {}, ...row]];
}

class Tex {
  constructor(tokens) {
    this.tokens = tokens;
    this.at = 0;
  }

  row(isEnd, depth) {
    const items = [];
    while (this.at < this.tokens.length && !isEnd(this.tokens[this.at])) {
      const item = this.#scripted(depth);
      if (item !== null) items.push(item);
    }
    return items;
  }

  #skipSpace() {
    while (/^\s+$/.test(this.tokens[this.at] ?? "")) this.at += 1;
  }

  // An atom with what stands below and above it.
  #scripted(depth) {
    const atom = this.#atom(depth);
    let below = null;
    let above = null;
    for (;;) {
      const before = this.at;
      this.#skipSpace();
      const next = this.tokens[this.at];
      if (next === "_" && below === null) below = this.#script(depth);
      else if (next === "^" && above === null) above = this.#script(depth);
      else if (next === "'" && above === null) above = this.#primes();
      else {
        this.at = before;
        break;
      }
    }
    if (below === null && above === null) return atom;
    const base = atom ?? ["mrow", {}];
    const kind = base.isLarge ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
    if (above === null) return [kind[0], {}, base, below];
    return below === null ? [kind[1], {}, base, above] : [kind[2], {}, base, below, above];
  }

  #script(depth) {
    this.at += 1;
    this.#skipSpace();
    return this.#atom(depth + 1) ?? ["mrow", {}];
  }

  #primes() {
    let count = 0;
    while (this.tokens[this.at] === "'") {
      count += 1;
      this.at += 1;
    }
    return ["mo", {}, "′".repeat(count)];
  }

  #atom(depth) {
    const token = this.tokens[this.at];
    if (token === undefined) return null;
    this.at += 1;
    if (/^\s/.test(token)) return null;
    if (depth > MAX_DEPTH) return ["mtext", {}, token];
    if (token === "{") return this.#group(depth);
    if (token === "}" || token === "&") return null;
    if (/^\d/.test(token)) return ["mn", {}, token];
    if (token[0] === "\\" && token.length > 1) return this.#command(token.slice(1), depth);
    if (/^\p{L}$/u.test(token)) return /^[\u3000-\u9fff]$/.test(token) ? ["mtext", {}, token] : ["mi", {}, token];
    if (token === "~") return ["mspace", { width: "0.25em" }];
    return ["mo", {}, token === "-" ? "−" : token === "*" ? "∗" : token];
  }

  #group(depth) {
    const row = this.row((token) => token === "}", depth + 1);
    this.at += 1;
    return ["mrow", {}, ...row];
  }

  #argument(depth) {
    this.#skipSpace();
    return this.#atom(depth + 1) ?? ["mrow", {}];
  }

  #command(name, depth) {
    if (Object.hasOwn(GREEK, name)) return ["mi", {}, GREEK[name]];
    if (Object.hasOwn(OPERATORS, name)) return ["mo", {}, OPERATORS[name]];
    if (Object.hasOwn(BIG, name)) return large(["mo", {}, BIG[name]], !name.endsWith("int"));
    if (FUNCTIONS.has(name)) return large(["mi", {}, name], LIMITS.has(name));
    if (Object.hasOwn(SPACES, name)) return ["mspace", { width: SPACES[name] }];
    if (Object.hasOwn(TEXTS, name)) return ["mtext", TEXTS[name] === "normal" ? {} : { class: TEXTS[name] }, this.#words()];
    if (Object.hasOwn(ACCENTS, name)) return ["mover", { accent: "true" }, this.#argument(depth), ["mo", {}, ACCENTS[name]]];
    if (IGNORED.has(name)) return this.#delimiter();
    switch (name) {
      case "frac":
      case "dfrac":
      case "tfrac":
        return ["mfrac", {}, this.#argument(depth), this.#argument(depth)];
      case "binom":
        return fenced("(", ")", ["mfrac", { linethickness: "0" }, this.#argument(depth), this.#argument(depth)]);
      case "sqrt":
        return this.#root(depth);
      case "boxed":
        return ["mrow", { class: "boxed" }, this.#argument(depth)];
      case "underline":
        return ["munder", {}, this.#argument(depth), ["mo", {}, "_"]];
      case "begin":
        return this.#environment(depth);
      case "\\":
        return ["mspace", { linebreak: "newline" }];
      default:
        return ["mtext", { class: "unknown" }, `\\${name}`];
    }
  }

  // \left( and its like: the character itself; "." stands for none.
  #delimiter() {
    if (this.tokens[this.at] !== ".") return null;
    this.at += 1;
    return null;
  }

  #words() {
    this.#skipSpace();
    if (this.tokens[this.at] !== "{") return this.tokens[this.at++] ?? "";
    let text = "";
    let open = 0;
    for (; this.at < this.tokens.length; this.at += 1) {
      const token = this.tokens[this.at];
      if (token === "{" && open++ === 0) continue;
      if (token === "}" && --open === 0) break;
      text += token;
    }
    this.at += 1;
    return text.replace(/ /g, "\u00A0");
  }

  #root(depth) {
    this.#skipSpace();
    if (this.tokens[this.at] !== "[") return ["msqrt", {}, this.#argument(depth)];
    this.at += 1;
    const index = ["mrow", {}, ...this.row((token) => token === "]", depth + 1)];
    this.at += 1;
    return ["mroot", {}, this.#argument(depth), index];
  }

  #environment(depth) {
    const name = this.#words().replace("*", "");
    if (!(Object.hasOwn(ENVIRONMENTS, name))) return ["mtext", { class: "unknown" }, `\\begin{${name}}`];
    if (name === "array") this.#words();
    const rows = [[]];
    while (this.at < this.tokens.length && this.tokens[this.at] !== "\\end") {
      const cell = this.row((token) => token === "&" || token === "\\\\" || token === "\\end", depth + 1);
      rows[rows.length - 1].push(["mtd", {}, ...cell]);
      if (this.tokens[this.at] === "\\\\") rows.push([]);
      if (this.tokens[this.at] !== "\\end") this.at += 1;
    }
    this.at += 1;
    this.#words();
    const table = ["mtable", {}, ...rows.filter((row) => row.length).map((row) => ["mtr", {}, ...row])];
    return fenced(...ENVIRONMENTS[name], table);
  }
}

function large(item, isLarge) {
  item.isLarge = isLarge;
  return item;
}

function fenced(opening, closing, inside) {
  const mark = (text) => (text ? [["mo", { stretchy: "true" }, text]] : []);
  return ["mrow", {}, ...mark(opening), inside, ...mark(closing)];
}

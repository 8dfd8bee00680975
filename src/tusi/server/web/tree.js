// A conversation as a tree: every edit and every new answer is a branch, and one path through it is shown.
// Pure: nodes are plain objects with id, parent (null at the top) and created; what else they hold is not looked at.

export class Tree {
  #nodes = new Map();
  #children = new Map([[null, []]]);

  /** selected: {parent id or "": child id}, which branch is shown where there are several. */
  constructor(nodes = [], selected = {}) {
    this.selected = { ...selected };
    const waiting = [...nodes].sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
    for (const node of waiting) this.#nodes.set(node.id, node);
    for (const node of waiting) {
      // A node whose parent was lost still shows: nothing that was said disappears.
      const parent = node.parent !== null && this.#nodes.has(node.parent) ? node.parent : null;
      this.#list(parent).push(node.id);
    }
  }

  get nodes() {
    return [...this.#nodes.values()];
  }

  get(id) {
    return this.#nodes.get(id);
  }

  /** Adds a node and shows its branch. */
  add(node) {
    if (!this.#nodes.has(node.id)) this.#list(node.parent).push(node.id);
    this.#nodes.set(node.id, node);
    this.selected[node.parent ?? ""] = node.id;
  }

  /** Replaces a node by a newer version of itself. */
  update(node) {
    if (this.#nodes.has(node.id)) this.#nodes.set(node.id, node);
    else this.add(node);
  }

  /** The nodes shown, from the first message to the last. upTo: end with this one, on whatever branch it is. */
  path(upTo = null) {
    if (upTo !== null) return this.#ancestors(upTo);
    const nodes = [];
    let id = this.#shown(null);
    while (id !== null) {
      nodes.push(this.#nodes.get(id));
      id = this.#shown(id);
    }
    return nodes;
  }

  /** The versions of a message, oldest first: itself and its siblings. */
  versions(id) {
    const node = this.#nodes.get(id);
    const parent = node.parent !== null && this.#nodes.has(node.parent) ? node.parent : null;
    return [...this.#list(parent)];
  }

  /** Shows the branch that a node is on. */
  select(id) {
    for (const node of this.#ancestors(id)) this.selected[node.parent ?? ""] = node.id;
  }

  #ancestors(id) {
    const nodes = [];
    for (let node = this.#nodes.get(id); node !== undefined && nodes.length < 100_000; ) {
      nodes.unshift(node);
      node = node.parent === null ? undefined : this.#nodes.get(node.parent);
    }
    return nodes;
  }

  #shown(parent) {
    const children = this.#list(parent);
    const chosen = this.selected[parent ?? ""];
    if (children.includes(chosen)) return chosen;
    return children.length ? children[children.length - 1] : null;
  }

  #list(parent) {
    if (!this.#children.has(parent)) this.#children.set(parent, []);
    return this.#children.get(parent);
  }
}

// Keeps conversations, messages and media in IndexedDB, each message a record of its own, so that two tabs cannot undo
// each other. If the browser lets nothing be kept (a private window, a full disk), it all lives on in memory and
// `onTrouble` is told once.

const NAME = "tusi";
const VERSION = 2; // 1 had no uploads
const STORES = { conversations: [], nodes: ["conversation"], media: ["conversation"], uploads: ["conversation"] };

export class Store {
  #db = null;
  #memory = new Map(Object.keys(STORES).map((name) => [name, new Map()]));
  #onTrouble;

  constructor(onTrouble = () => {}) {
    this.#onTrouble = onTrouble;
  }

  /** Opens the database. Never throws. */
  async open() {
    try {
      this.#db = await openDatabase();
      this.#db.onversionchange = () => this.#db.close(); // a newer page in another tab
    } catch (error) {
      this.#trouble(error);
    }
  }

  async all(store) {
    return this.#read(store, (objects) => objects.getAll(), (memory) => [...memory.values()]);
  }

  async get(store, id) {
    return this.#read(store, (objects) => objects.get(id), (memory) => memory.get(id));
  }

  async ofConversation(store, conversation) {
    return this.#read(
      store,
      (objects) => objects.index("conversation").getAll(conversation),
      (memory) => [...memory.values()].filter((value) => value.conversation === conversation),
    );
  }

  /** Writes a record; true once it is on disk, false if it is in memory only. */
  async put(store, value) {
    if (this.#memory.get(store).has(value.id) || this.#db === null) this.#memory.get(store).set(value.id, value);
    if (this.#db === null) return false;
    try {
      await done(this.#db.transaction(store, "readwrite", { durability: "strict" }), (transaction) => {
        transaction.objectStore(store).put(value);
        transaction.commit(); // now: the page may be gone before the browser would do it by itself
      });
      this.#memory.get(store).delete(value.id);
      return true;
    } catch (error) {
      this.#memory.get(store).set(value.id, value);
      this.#trouble(error);
      return false;
    }
  }

  /** Forgets one record. */
  async removeOne(store, id) {
    this.#memory.get(store).delete(id);
    if (this.#db === null) return;
    await done(this.#db.transaction(store, "readwrite"), (transaction) => transaction.objectStore(store).delete(id));
  }

  /** Forgets a conversation with all that is in it. */
  async remove(conversation) {
    for (const [name, memory] of this.#memory) {
      for (const [id, value] of memory) {
        if (id === conversation || (name !== "conversations" && value.conversation === conversation)) memory.delete(id);
      }
    }
    if (this.#db === null) return;
    await done(this.#db.transaction(Object.keys(STORES), "readwrite"), (transaction) => {
      transaction.objectStore("conversations").delete(conversation);
      for (const name of Object.keys(STORES).filter((store) => STORES[store].includes("conversation"))) {
        const request = transaction.objectStore(name).index("conversation").openKeyCursor(IDBKeyRange.only(conversation));
        request.onsuccess = () => {
          const cursor = request.result;
          if (cursor === null) return;
          transaction.objectStore(name).delete(cursor.primaryKey);
          cursor.continue();
        };
      }
    });
  }

  async #read(store, ask, remember) {
    const kept = remember(this.#memory.get(store));
    if (this.#db === null) return kept;
    try {
      const found = await answer(ask(this.#db.transaction(store).objectStore(store)));
      if (!Array.isArray(found)) return kept ?? found;
      const inMemory = new Map(kept.map((value) => [value.id, value])); // what could not be written is newer
      return [...found.filter((value) => !inMemory.has(value.id)), ...inMemory.values()];
    } catch (error) {
      this.#trouble(error);
      return kept;
    }
  }

  #trouble(error) {
    const tell = this.#onTrouble;
    this.#onTrouble = () => {};
    tell(error);
  }
}

function openDatabase() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => {
      for (const [name, indexes] of Object.entries(STORES)) {
        if (request.result.objectStoreNames.contains(name)) continue;
        const objects = request.result.createObjectStore(name, { keyPath: "id" });
        for (const index of indexes) objects.createIndex(index, index);
      }
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("another tab holds an older version"));
  });
}

function answer(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function done(transaction, work) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onerror = () => reject(transaction.error);
    transaction.onabort = () => reject(transaction.error);
    work(transaction);
  });
}

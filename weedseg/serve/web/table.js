// The table over all photos: sortable, a hundred rows at a time.
import { button, el } from "./dom.js";
import { count } from "./format.js";

const PAGE = 100;

export class SortableTable {
  /**
   * @param {string} caption
   * @param {Array} columns of {key, label, value(row), cell(row), number}
   * @param {{key: string, down: boolean}} order what it is sorted by at first
   */
  constructor(caption, columns, order) {
    Object.assign(this, { columns, order, rows: [], shown: PAGE, isCurrent: () => false });
    this.body = el("tbody");
    this.more = button("", () => this.#showMore(), { hidden: true });
    this.heads = columns.map((column) => el(
      "th", { scope: "col", class: column.number ? "number" : false },
      el("button", { type: "button", class: "sort", on: { click: () => this.#sortBy(column) } }, column.label),
    ));
    const table = el(
      "table", {},
      el("caption", { class: "unseen" }, `${caption}. The buttons in the first row sort it.`),
      el("thead", {}, el("tr", {}, this.heads)),
      this.body,
    );
    this.root = el(
      "div", {},
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table),
      this.more,
    );
    this.#markOrder();
  }

  /** Show these rows. */
  set(rows) {
    this.rows = rows;
    this.refresh();
  }

  /** All rows in the order that is seen. */
  get sorted() {
    const { value } = this.columns.find((column) => column.key === this.order.key);
    const sign = this.order.down ? -1 : 1;
    return [...this.rows].sort((a, b) => sign * compare(value(a), value(b), sign) || a.number - b.number);
  }

  refresh() {
    const rows = this.sorted.slice(0, this.shown);
    const cells = (row) => this.columns.map((column, place) => el(
      place === 0 ? "th" : "td",
      { scope: place === 0 ? "row" : false, class: column.number ? "number" : false },
      column.cell(row),
    ));
    this.body.replaceChildren(...rows.map((row) => el("tr", { class: this.isCurrent(row) ? "current" : false }, cells(row))));
    const left = this.rows.length - rows.length;
    this.more.hidden = left <= 0;
    this.more.textContent = `Show ${count(Math.min(left, PAGE), "more row")}`;
  }

  #sortBy(column) {
    const again = this.order.key === column.key;
    this.order = { key: column.key, down: again ? !this.order.down : Boolean(column.number) };
    this.#markOrder();
    this.refresh();
  }

  #markOrder() {
    this.columns.forEach((column, place) => {
      const current = column.key === this.order.key;
      const direction = this.order.down ? "descending" : "ascending";
      if (current) this.heads[place].setAttribute("aria-sort", direction);
      else this.heads[place].removeAttribute("aria-sort");
    });
  }

  #showMore() {
    this.shown += PAGE;
    this.refresh();
  }
}

/** Compare numbers or texts; nothing comes last in either direction. */
function compare(a, b, sign) {
  if (a === null || b === null) return sign * ((a === null) - (b === null));
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
}

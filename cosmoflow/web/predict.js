// Predict, then reveal: a question before a figure moves, and how typical answers fail.
// Without JavaScript the same text stands in its `details` element.
// @ts-check

let asked = 0;

/**
 * Makes a form of a question: <summary> asks, and each <li> holds an answer in <b> and
 * what to say of it. The right one has the class "right".
 * @param {HTMLElement} details
 * @param {() => Promise<void>} reveal moves the figure
 * @returns {HTMLFormElement}
 */
export function predict(details, reveal) {
  const form = document.createElement("form"), name = `predict-${++asked}`;
  form.className = "cf-predict";
  form.innerHTML = `<fieldset><legend></legend><button class="cf-button" disabled>
    Answer, and see</button></fieldset><p role="status" tabindex="-1"></p>`;
  const [legend, button, verdict] = ["legend", "button", "p"].map(tag =>
    /** @type {HTMLElement} */ (form.querySelector(tag)));
  legend.append(...details.querySelector("summary")?.childNodes ?? []);
  const answers = Array.from(details.querySelectorAll("li"), (item, i) => {
    const says = /** @type {HTMLElement} */ (item.querySelector("b"));
    const label = document.createElement("label"), input = document.createElement("input");
    const why = document.createElement("p");
    Object.assign(input, { type: "radio", name, value: String(i) });
    const text = document.createElement("span");
    text.append(...says.childNodes);
    says.remove();
    label.append(input, text);
    why.append(...item.childNodes);
    why.hidden = true;
    button.before(label, why);
    return { label, input, why, right: item.classList.contains("right") };
  });
  form.addEventListener("change", () => button.removeAttribute("disabled"));
  form.addEventListener("submit", async event => {
    event.preventDefault();
    button.setAttribute("disabled", "");
    for (const { input } of answers) input.disabled = true;
    await reveal();
    button.remove();
    for (const { label, why, right } of answers) {
      label.classList.toggle("cf-right", right);
      why.hidden = false;
    }
    const right = answers.find(answer => answer.right);
    verdict.textContent = right?.input.checked ? "That is right. The figure shows it."
      : `The figure says: ${right?.label.textContent} Below each answer stands why.`;
    verdict.focus({ preventScroll: true });
  });
  details.replaceWith(form);
  return form;
}

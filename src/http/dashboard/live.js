// Keeps the parts of a page that are marked `data-live` as the server has them now. Without scripts a page is as good,
// and reloading shows what has changed.
(() => {
  const EVERY = 5000;
  const note = document.getElementById("stale");
  const isInUse = (part) => part.contains(document.activeElement) && document.activeElement !== document.body;
  let isReading = false;
  const refresh = async () => {
    // One at a time: the server may be slow because it has much to do.
    if (document.hidden || isReading) return;
    isReading = true;
    try {
      await read();
    } finally {
      isReading = false;
    }
  };
  const read = async () => {
    let answer;
    try {
      answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store" });
    } catch {
      note.textContent = "The worker does not answer: what is shown may be old.";
      return;
    }
    if (answer.status === 401) return location.reload();
    if (!answer.ok) {
      note.textContent = "The page could not be read again: what is shown may be old.";
      return;
    }
    if (document.querySelector("[data-again]")) return location.reload();
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = page.getElementById(part.id);
      if (!now || isInUse(part) || now.innerHTML === part.innerHTML) continue;
      const scrolled = [...part.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
      const open = [...part.querySelectorAll("details")].map((box) => box.open);
      part.innerHTML = now.innerHTML;
      part.querySelectorAll(".scroll").forEach((box, index) => { box.scrollLeft = scrolled[index] ?? 0; });
      part.querySelectorAll("details").forEach((box, index) => { box.open = open[index] ?? box.open; });
    }
    note.textContent = "";
  };
  setInterval(refresh, EVERY);
  document.addEventListener("visibilitychange", refresh);
})();

// What changes, for those who listen rather than look: few words, and not all the time.

/** From one announcement to the next, in milliseconds. */
const PAUSE = 4000;
/** More than so many changes are told as a number. */
const MOST = 3;

let waiting = [];
let timer = 0;

/** Tells these with whatever else comes within a moment. */
export function announce(news) {
  waiting.push(...news);
  if (waiting.length > 0 && timer === 0) timer = setTimeout(tell, PAUSE);
}

function tell() {
  const text = waiting.length > MOST ? `${waiting.length} changes` : waiting.join("; ");
  document.getElementById("news").textContent = text;
  waiting = [];
  timer = 0;
}

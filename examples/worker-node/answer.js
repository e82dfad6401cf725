// The only part about answers: put your own here. It quotes the passages and cites them.

/** The pieces of the answer to an item. The same item gives the same pieces. */
export function pieces(item) {
  const chinese = item.language === "zh";
  const passages = item.passages ?? [];
  const found = item.turns?.flatMap((turn) => turn.results).filter((result) => result.ok) ?? [];
  const sentences = found.map((result) => `${beginning(result.content)}\n`);
  for (const passage of passages) {
    const quoted = passage.text.split(/(?<=[.!?。！？])\s*/u).slice(0, 3).join(chinese ? "" : " ").trim();
    sentences.push(`${beginning(quoted)} [${passage.n}]\n`);
  }
  if (sentences.length === 0) sentences.push(chinese ? "文档里没有找到。" : "Nothing was found in the documents.");
  return sentences.join("").match(/\[\d+\]\n|\p{Script=Han}{1,2}|[^\s\p{Script=Han}]+\s*|\s+/gu);
}

/** So much of a text that every piece of it fits into a frame, and the answer into a message. */
const beginning = (text) => text.match(/^.{0,2000}/su)[0];

/** Which passages an answer cites, and where: offsets count characters (Unicode code points), not UTF-16 units. */
export function citations(text, passages) {
  const numbers = new Set((passages ?? []).map((passage) => passage.n));
  const found = [];
  for (const mark of text.matchAll(/\[(\d+)\]/g)) {
    const start = [...text.slice(0, mark.index)].length;
    if (numbers.has(Number(mark[1]))) found.push({ n: Number(mark[1]), start, end: start + mark[0].length });
  }
  return { cited: [...new Set(found.map(({ n }) => n))].sort((a, b) => a - b), citations: found };
}

export const writing = (language) => (language === "zh" ? "正在写回答" : "Writing the answer");

// @ts-check
/** The page's own words, in English and Chinese. */

/** @typedef {"en" | "zh"} Language */

/** @type {Record<string, [string | ((n: any) => string), string | ((n: any) => string)]>} key → [English, Chinese] */
const WORDS = {
  "app.title": ["Baton · answers with sources", "Baton · 有出处的回答"],
  "app.skip": ["Skip to the question box", "跳到提问框"],
  "hero.title": ["What would you like to know?", "想了解什么？"],
  "hero.text": [
    "Ask your documents. Watch every step, and check each claim against its source.",
    "向你的文档提问。每一步都看得见，每句话都有出处可查。",
  ],
  "hero.examples": ["Try one of these", "试试这些问题"],
  "ask.label": ["Your question", "你的问题"],
  "ask.placeholder": ["Ask a question…", "输入问题……"],
  "ask.followup": ["Ask a follow-up question…", "继续追问……"],
  "ask.send": ["Send", "发送"],
  "ask.stop": ["Stop", "停止"],
  "ask.next": ["Ask next", "排队提问"],
  "ask.interrupt": ["Stop and ask this", "停止并问这个"],
  "ask.hint": ["Enter to send · Shift + Enter for a new line", "Enter 发送 · Shift + Enter 换行"],
  "ask.hint.running": ["Esc stops the answer", "按 Esc 停止回答"],
  "ask.hint.next": [
    "Enter asks it after this answer · Ctrl + Enter stops the answer and asks it now",
    "Enter 在这个回答之后提问 · Ctrl + Enter 停止回答并立即提问",
  ],
  "ask.hint.held": ["It is asked as soon as the question before has arrived", "上一个问题送达后会自动提问"],
  "nav.new": ["New conversation", "新对话"],
  "nav.language": ["中文", "English"],
  "nav.language.label": ["切换到中文", "Switch to English"],
  "theme.auto": ["Theme: automatic", "主题：跟随系统"],
  "theme.light": ["Theme: light", "主题：浅色"],
  "theme.dark": ["Theme: dark", "主题：深色"],
  conversation: ["Conversation", "对话"],
  "conversation.loading": ["Fetching the conversation…", "正在读取对话……"],
  "conversation.dropped": [
    (n) => (n === 1 ? "One earlier question is no longer kept." : `${n} earlier questions are no longer kept.`),
    (n) => `更早的 ${n} 个问题已不再保存。`,
  ],
  "conversation.failed": ["That did not work", "出错了"],
  "conversation.disconnected": ["The server could not be reached", "无法连接服务器"],
  "conversation.not_found": ["There is no such conversation here (any more)", "这里没有（或已不再有）这个对话"],
  "conversation.unauthorized": ["Your token was not accepted", "令牌未被接受"],
  "conversation.forbidden": ["Your token does not allow this", "当前令牌无权执行此操作"],
  "conversation.overloaded": ["The conversations cannot be reached right now", "暂时无法读取对话"],
  "conversations.label": ["Conversations", "对话记录"],
  "conversations.toggle": ["Conversations", "对话记录"],
  "conversations.hide": ["Close the list", "关闭列表"],
  "conversations.empty": ["Nothing has been asked yet.", "还没有提问。"],
  "conversations.untitled": ["Conversation", "对话"],
  "conversations.questions": [(n) => (n === 1 ? "1 question" : `${n} questions`), (n) => `${n} 个问题`],
  "conversations.running": ["Answering…", "正在回答……"],
  "conversations.shared": [
    "Nobody signs in here, so everybody who uses this server shares these conversations.",
    "此服务器无需登录，所有使用者共享这些对话。",
  ],
  "conversations.delete": [(title) => `Delete: ${title}`, (title) => `删除：${title}`],
  "conversations.delete.title": ["Delete this conversation?", "删除这个对话？"],
  "conversations.delete.text": [
    "Its questions and answers are deleted for good, and what is being answered in it is stopped.",
    "其中的问题和回答将被永久删除，正在进行的回答也会停止。",
  ],
  "conversations.delete.sure": ["Delete", "删除"],
  "conversations.deleted": ["The conversation was deleted.", "对话已删除。"],
  "files.label": ["Documents", "文档"],
  "files.add": ["Add documents", "添加文档"],
  "files.folder": ["Add a folder", "添加文件夹"],
  "files.empty": ["Drop files or folders anywhere on this page, or choose them.", "把文件或文件夹拖到页面任意位置，或点击选择。"],
  "files.drop": ["Drop to add to your documents", "松开即可添加到文档"],
  "files.more": [(n) => `and ${n} more`, (n) => `还有 ${n} 个`],
  "files.too_many": [
    (n) => `Only the first ${n} files were taken; bring in the others afterwards, or as a zip archive.`,
    (n) => `只接收了前 ${n} 个文件，其余请稍后添加，或打包为 zip。`,
  ],
  "files.too_large": ["The file is too large", "文件过大"],
  "files.state.waiting": ["Waiting", "等待上传"],
  "files.state.uploading": [(n) => `Uploading, ${n} %`, (n) => `正在上传，${n}%`],
  "files.state.refused": [(why) => `Not taken: ${why}`, (why) => `未接收：${why}`],
  "files.state.queued": ["Waiting to be read", "等待读取"],
  "files.state.parsing": ["Reading", "正在读取"],
  "files.state.writing": [(p) => `${p.done} of ${p.total} passages`, (p) => `${p.done} / ${p.total} 段`],
  "files.state.ready": [
    (n) => (n === 1 ? "Ready · 1 passage" : `Ready · ${n} passages`),
    (n) => `就绪 · ${n} 段`,
  ],
  "files.state.failed": [(why) => `Failed: ${why}`, (why) => `失败：${why}`],
  "files.state.removing": ["Being removed", "正在移除"],
  "files.progress": [(name) => `Progress: ${name}`, (name) => `进度：${name}`],
  "files.retry": [(name) => `Try again: ${name}`, (name) => `重试：${name}`],
  "files.remove": [(name) => `Remove: ${name}`, (name) => `移除：${name}`],
  "files.remove.title": ["Remove this document?", "移除这个文档？"],
  "files.remove.text": ["No question will find it any more.", "之后的提问将不再检索到它。"],
  "files.remove.sure": ["Remove", "移除"],
  "files.open": [(name) => `Open: ${name}`, (name) => `打开：${name}`],
  "files.announce.ready": [(name) => `${name} is ready.`, (name) => `${name} 已就绪。`],
  "files.announce.failed": [(f) => `${f.name} failed: ${f.why}`, (f) => `${f.name} 失败：${f.why}`],
  "files.announce.removed": [(name) => `${name} was removed.`, (name) => `${name} 已移除。`],
  "files.announce.added": [
    (n) => (n === 1 ? "1 file is being uploaded." : `${n} files are being uploaded.`),
    (n) => `正在上传 ${n} 个文件。`,
  ],
  "question.unknown": ["A question that was asked elsewhere", "在别处提出的问题"],
  "question.cancel": ["Do not ask this", "取消这个问题"],
  jump: ["To the end", "到底部"],
  "state.idle": ["Ready", "就绪"],
  "state.connecting": ["Connecting…", "正在连接……"],
  "state.online": ["Online", "在线"],
  "state.reconnecting": ["Reconnecting…", "正在重连……"],
  "state.auth": ["Token needed", "需要令牌"],
  "state.offline": ["Offline", "离线"],
  "state.refused": ["Refused", "已被拒绝"],
  "state.closed": ["Closed", "已关闭"],
  "state.reconnect": ["Connect again", "重新连接"],
  "steps.label": ["Steps", "步骤"],
  "steps.summary": [(n) => (n === 1 ? "1 step" : `${n} steps`), (n) => `${n} 个步骤`],
  "steps.sent": ["Sending the question", "正在发送问题"],
  "steps.waiting": ["Waiting for the connection; the answer continues by itself", "等待连接恢复，回答会自动继续"],
  "steps.queued": ["Waiting for the answer before", "等待上一个回答完成"],
  "steps.kept": ["Looking for the steps…", "正在查找步骤……"],
  "steps.gone": ["The steps of this answer are no longer stored", "这次回答的过程已不再保存"],
  "steps.busy": [(w) => `${w.why}; asking again in ${w.seconds} s`, (w) => `${w.why}，${w.seconds} 秒后自动重新提问`],
  "stage.understanding": ["Understanding", "理解问题"],
  "stage.retrieving": ["Searching", "检索文档"],
  "stage.generating": ["Writing", "生成回答"],
  "stage.tool": ["Tool", "调用工具"],
  "step.running": ["running", "进行中"],
  "step.done": ["done", "已完成"],
  "step.failed": ["failed", "失败"],
  "step.stopped": ["stopped", "已停止"],
  "step.passages": [(n) => (n === 1 ? "1 passage" : `${n} passages`), (n) => `${n} 段内容`],
  "tool.result": ["Result", "结果"],
  "tool.arguments": ["Arguments", "参数"],
  "tool.failed": ["The tool failed", "工具调用失败"],
  "answer.label": ["Answer", "回答"],
  "answer.copy": ["Copy answer", "复制回答"],
  "answer.copied": ["Copied", "已复制"],
  "answer.copy.failed": ["Copying failed", "复制失败"],
  "answer.again": ["Ask again", "重新提问"],
  "answer.again.title": ["Ask again, without the cache", "重新提问（不使用缓存）"],
  "answer.complete": [
    (n) => `Answer complete, ${n} ${n === 1 ? "source" : "sources"} cited.`,
    (n) => `回答完成，引用了 ${n} 个来源。`,
  ],
  "answer.cancelled": ["Stopped. This is what had been written.", "已停止，以上是已写出的内容。"],
  "answer.cancelled.empty": ["Stopped before anything was written.", "已停止，尚未写出内容。"],
  "answer.length": ["Cut off: the answer reached its length limit.", "已截断：回答达到了长度上限。"],
  "answer.content_filter": ["The model's content filter ended this answer.", "模型的内容过滤器终止了回答。"],
  "answer.reset": ["Started again after a worker was replaced", "工作进程被替换后重新生成"],
  "answer.unrecovered": [
    "The steps of this answer are no longer stored; this is the final answer that was kept.",
    "这次回答的过程已不再保存，以上是留存的最终答案。",
  ],
  "answer.empty": ["The answer is empty.", "回答为空。"],
  "answer.stopping": ["Stopping…", "正在停止……"],
  "code.copy": ["Copy code", "复制代码"],
  "sources.label": ["Sources", "来源"],
  "sources.cited": ["Sources", "来源"],
  "sources.found": ["Found", "找到的内容"],
  "sources.uncited": [(n) => `Also found, not cited (${n})`, (n) => `另外找到但未引用（${n}）`],
  "source.name": [(s) => `Source ${s.n}: ${s.title}`, (s) => `来源 ${s.n}：${s.title}`],
  "source.page": [(n) => `p. ${n}`, (n) => `第 ${n} 页`],
  "source.cited": ["Cited in the answer", "回答中已引用"],
  "source.uncited": ["Not cited in the answer", "回答中未引用"],
  "source.open": ["Open the original", "打开原文"],
  "source.file": ["Original file", "原始文件"],
  "source.earlier": ["Earlier", "上一部分"],
  "source.later": ["Later", "下一部分"],
  "source.opens": ["opens in a new tab", "在新标签页中打开"],
  "source.passage": ["Passage", "原文片段"],
  "source.previous": ["Previous source", "上一个来源"],
  "source.next": ["Next source", "下一个来源"],
  "source.position": [(p) => `${p.at} of ${p.of}`, (p) => `${p.at} / ${p.of}`],
  "source.close": ["Close", "关闭"],
  "source.failed": ["The original could not be opened", "无法打开原文"],
  "source.denied": ["your token does not allow it", "当前令牌无权访问"],
  "source.missing": ["it is not stored here", "这里没有保存该文档"],
  "time.now": ["just now", "刚刚"],
  "time.label": ["Timings", "耗时"],
  "time.ttfb": ["First response", "首个响应"],
  "time.ttft": ["First word", "首字"],
  "time.retrieval": ["Search", "检索"],
  "time.rate": ["Speed", "速度"],
  "time.total": ["Total", "总计"],
  "time.tokens": [(n) => `${n} tokens/s`, (n) => `${n} 词元/秒`],
  "cache.hit": ["From the cache", "来自缓存"],
  "cache.hit.title": [
    "The same question was answered before, from the same documents",
    "同样的问题此前已依据相同的文档回答过",
  ],
  "cache.miss": ["Not in the cache", "缓存中没有"],
  "cache.off": ["Not used", "未使用"],
  "detail.label": ["Details", "详情"],
  "detail.request": ["Request", "请求"],
  "detail.fingerprint": ["Fingerprint", "指纹"],
  "detail.cache": ["Cache", "缓存"],
  "detail.variant": ["Variant", "变体"],
  "detail.tokens": ["Tokens", "词元"],
  "detail.tokens.of": [
    (u) => `${u.prompt_tokens} in, ${u.completion_tokens} out`,
    (u) => `输入 ${u.prompt_tokens}，输出 ${u.completion_tokens}`,
  ],
  "error.title": ["That did not work", "出错了"],
  "error.retry": ["Try again", "重试"],
  "error.retry.in": [(n) => `Try again in ${n} s`, (n) => `${n} 秒后可重试`],
  "error.code": [(code) => `Code: ${code}`, (code) => `代码：${code}`],
  "error.too_large": ["The question is too large", "问题过长"],
  "error.unauthorized": ["You are not signed in", "尚未登录"],
  "error.forbidden": ["Not allowed", "不允许"],
  "error.not_found": ["This question is not known here", "找不到这个问题"],
  "error.gone": ["This answer is no longer stored", "这个回答已不再保存"],
  "error.conversation_busy": ["Too much is being asked in this conversation", "这个对话里等待回答的问题太多"],
  "error.rate_limited": ["Too many questions in a short time", "提问过于频繁"],
  "error.overloaded": ["Very busy right now", "系统繁忙"],
  "error.no_worker": ["Nobody is there to answer", "没有可用的工作进程"],
  "error.deadline": ["It took too long", "超时"],
  "error.retrieval_failed": ["The search failed", "检索失败"],
  "error.model_failed": ["The model failed", "模型出错"],
  "error.model_stalled": ["The model stopped responding", "模型没有响应"],
  "error.poisoned": ["No worker could finish this question", "没有工作进程能完成这个问题"],
  "error.log_lost": ["Part of the answer was lost", "部分回答丢失"],
  "error.disconnected": ["The connection was lost", "连接已断开"],
  "token.title": ["Access token", "访问令牌"],
  "token.text": [
    "This server asks who you are. Paste your token; it stays in this tab and is forgotten when you close it.",
    "此服务器需要验证身份。请粘贴你的令牌；它只保存在此标签页中，关闭后即清除。",
  ],
  "token.refused": ["The token was not accepted or has expired.", "令牌无效或已过期。"],
  "token.field": ["Token", "令牌"],
  "token.use": ["Continue", "继续"],
  "token.cancel": ["Not now", "暂不"],
  "announce.lost": ["Connection lost. Reconnecting.", "连接已断开，正在重连。"],
  "announce.back": ["Connected again.", "已重新连接。"],
  "announce.sources": [(n) => `${n} ${n === 1 ? "passage" : "passages"} found.`, (n) => `找到 ${n} 段内容。`],
};

export const EXAMPLES = Object.freeze([
  { language: "zh", text: "公司年假政策有哪些？" },
  { language: "zh", text: "我还剩多少天年假？" },
  { language: "en", text: "How do I claim travel expenses?" },
  { language: "en", text: "Can I work remotely from abroad?" },
]);

/** @type {Language} */
let current = "en";

/** @returns {Language} */
export function language() {
  return current;
}

/** @param {Language} value */
export function setLanguage(value) {
  current = value;
  document.documentElement.lang = value === "zh" ? "zh-CN" : "en";
}

/** Whether there are words for a key. @param {string} key */
export function has(key) {
  return Object.hasOwn(WORDS, key);
}

/** The words for `key` in the current language. @param {string} key @param {any} [value] for words that contain one */
export function t(key, value) {
  const words = WORDS[key][current === "zh" ? 1 : 0];
  return typeof words === "function" ? words(value) : words;
}

/** A duration for people: `38 ms`, `1.2 s`, `1 min 5 s`. @param {number} ms */
export function duration(ms) {
  if (ms < 0.5) return "<1 ms";
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  const [minutes, rest] = [Math.floor(seconds / 60), seconds % 60];
  return current === "zh" ? `${minutes} 分 ${rest} 秒` : `${minutes} min ${rest} s`;
}

const UNITS = /** @type {const} */ ([
  ["day", 86_400_000],
  ["hour", 3_600_000],
  ["minute", 60_000],
]);

/** How long ago something was, for people; after a week its date. @param {number} instant Unix ms */
export function ago(instant) {
  const tag = current === "zh" ? "zh-CN" : "en-GB";
  const passed = Math.max(0, Date.now() - instant);
  if (passed > 7 * 86_400_000) return new Intl.DateTimeFormat(tag, { dateStyle: "medium" }).format(instant);
  const [unit, length] = UNITS.find(([, ms]) => passed >= ms) ?? ["minute", 60_000];
  return passed < 60_000
    ? t("time.now")
    : new Intl.RelativeTimeFormat(tag, { numeric: "auto" }).format(-Math.floor(passed / length), unit);
}

/**
 * Put words into the elements that ask for them by `data-i18n` (text) or `data-i18n-label` (accessible name and
 * tooltip).
 */
export function translatePage(root = document) {
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-i18n]"))) {
    node.textContent = t(/** @type {string} */ (node.dataset.i18n));
  }
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-i18n-label]"))) {
    const words = t(/** @type {string} */ (node.dataset.i18nLabel));
    node.setAttribute("aria-label", words);
    if (node.tagName === "BUTTON") node.title = words;
  }
}

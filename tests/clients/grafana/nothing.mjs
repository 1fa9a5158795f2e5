// Stands for the editor and the assistant, which need a real browser; nothing here calls them.
export const languages = {};
export const editor = {};
export const KeyCode = {};
export const KeyMod = {};
export const QueryWithAssistantButton = () => null;
export default {};

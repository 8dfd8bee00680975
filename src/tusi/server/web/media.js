// Pictures and videos: from what was dropped, pasted or picked to records that can be kept.

import { newId } from "./ids.js";

// What the server reads as it is; other pictures that this browser can show are turned into PNG.
const SENT_AS_THEY_ARE = /^image\/(png|jpeg|gif|webp|bmp|tiff)$/;
const TYPES = {
  avif: "image/avif", bmp: "image/bmp", gif: "image/gif", heic: "image/heic", jpeg: "image/jpeg", jpg: "image/jpeg",
  png: "image/png", svg: "image/svg+xml", tif: "image/tiff", tiff: "image/tiff", webp: "image/webp",
  avi: "video/x-msvideo", m4v: "video/mp4", mkv: "video/x-matroska", mov: "video/quicktime", mp4: "video/mp4",
  webm: "video/webm",
};
const PATIENCE = 10_000;

/** A file as a record {id, conversation, kind, blob, name, width, height, duration}; null if it is neither kind. */
export async function fromFile(file, conversation) {
  const extension = file.name.split(".").pop().toLowerCase();
  const type = file.type || TYPES[extension] || "";
  const record = { id: newId(), conversation, name: file.name, width: null, height: null, duration: null };
  if (type.startsWith("image/")) return { ...record, kind: "image", ...(await measuredPicture(typed(file, type))) };
  if (type.startsWith("video/")) return { ...record, kind: "video", ...(await measuredVideo(typed(file, type))) };
  return null;
}

/** A picture that a tool gave, as a record; at once, with its size still unknown. */
export function fromDataUrl(url, conversation) {
  const [head, body] = [url.slice(0, url.indexOf(",")), url.slice(url.indexOf(",") + 1)];
  const type = /^data:(image\/[\w.+-]+);base64$/.exec(head)?.[1];
  if (type === undefined) return null; // an address elsewhere: nothing is loaded that a tool names
  const bytes = Uint8Array.from(atob(body), (character) => character.charCodeAt(0));
  const blob = new Blob([bytes], { type });
  return { id: newId(), conversation, kind: "image", blob, name: "", width: null, height: null, duration: null };
}

/** The record with its size, once a browser has looked at it. */
export async function withSize(record) {
  return { ...record, ...(await measuredPicture(record.blob)) };
}

export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

function typed(file, type) {
  return file.type === type ? file : new Blob([file], { type });
}

async function measuredPicture(blob) {
  const url = URL.createObjectURL(blob);
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const size = { width: image.naturalWidth, height: image.naturalHeight };
    return { blob: SENT_AS_THEY_ARE.test(blob.type) ? blob : await asPng(image), ...size };
  } catch {
    return { blob, width: null, height: null }; // this browser cannot show it; the server may be able to read it
  } finally {
    URL.revokeObjectURL(url);
  }
}

async function asPng(image) {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  canvas.getContext("2d").drawImage(image, 0, 0);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no PNG"))), "image/png");
  });
}

function measuredVideo(blob) {
  const url = URL.createObjectURL(blob);
  const video = document.createElement("video");
  return new Promise((resolve) => {
    const end = (size) => {
      URL.revokeObjectURL(url);
      resolve({ blob, width: null, height: null, duration: null, ...size });
    };
    video.onloadedmetadata = () => {
      const duration = Number.isFinite(video.duration) ? video.duration : null;
      end({ width: video.videoWidth || null, height: video.videoHeight || null, duration });
    };
    video.onerror = () => end({});
    setTimeout(() => end({}), PATIENCE);
    video.preload = "metadata";
    video.src = url;
  });
}

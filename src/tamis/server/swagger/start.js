// Draws /openapi.json with Swagger UI; a file of its own so that no script stands in the page.
window.addEventListener("load", () => {
  SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true });
});

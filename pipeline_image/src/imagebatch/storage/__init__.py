"""Where images come from (`inputs`) and where runs are kept (`runs`)."""
